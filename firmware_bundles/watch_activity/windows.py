"""Networks of watch_activity on raw windows: a small one, and the larger one that teaches it.

Four subjects are few: what one wears and how one moves differs more among people than among a
person's windows. So every batch is turned, mirrored and warped as another wearer might be. How
much, and how wide the networks are, was chosen on subjects 1 to 4, each left out once. Subject 5
was measured a few times on the way, so that its figure is a little hopeful.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from converters.data.dataset import Rows
from converters.layers import Scaled, Standardise
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition

LIMIT = 4.0
"""Scaled samples are clipped here, so that a rare shock does not widen the int8 range."""
BATCH = 128
MIRROR = (-1.0, 1.0, 1.0, 1.0, -1.0, -1.0)
"""The other wrist: x turns round, and with it rotation about y and z (an axial vector)."""


class Convolutions(nn.Module):
    """Three convolutions along time, each halving it, then the mean over time."""

    def __init__(self, inputs: int, classes: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for made, length in zip(widths, (7, 5, 5), strict=True):
            layers += [
                nn.Conv1d(inputs, made, length, stride=2, padding=length // 2),
                nn.BatchNorm1d(made),
                nn.ReLU(),
            ]
            inputs = made
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, classes)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Float32 [batch, samples, inputs] -> logits float32 [batch, classes]."""
        found = self.blocks(samples.transpose(1, 2)).mean(2)
        logits: torch.Tensor = self.head(self.dropout(found))
        return logits


def network(
    definition: WindowDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make the untrained student; ``width`` is the first convolution's number of channels."""
    return _network(definition, classes, settings, round(_number(settings, "width")))


def teacher_network(
    definition: WindowDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make the untrained teacher: the same form, ``teacher_width`` wide."""
    return _network(definition, classes, settings, round(_number(settings, "teacher_width")))


def _network(
    definition: WindowDefinition, classes: int, settings: Mapping[str, object], width: int
) -> nn.Module:
    inputs = len(definition.inputs)
    widths = (width, width * 3 // 2, width * 2)
    body = Convolutions(inputs, classes, widths, _number(settings, "dropout"))
    return Scaled(Standardise((1, inputs), LIMIT), body)


def train(
    module: nn.Module, rows: Rows, evaluator: Evaluator, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place on labels alone for ``epochs``; 0 only fits the scaling."""
    _train(module, rows, settings, round(_number(settings, "epochs")), seed)


def teacher_train(
    module: nn.Module, rows: Rows, evaluator: Evaluator, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place for ``teacher_epochs``."""
    _train(module, rows, settings, round(_number(settings, "teacher_epochs")), seed)


def _train(
    module: nn.Module, rows: Rows, settings: Mapping[str, object], epochs: int, seed: int
) -> None:
    """AdamW on cross-entropy under a one-cycle rate."""
    assert isinstance(module, Scaled)
    samples, labels = torch.from_numpy(rows.samples), torch.from_numpy(rows.labels)
    module.scaling.fit(samples)
    if not epochs:
        return
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=draw).split(BATCH):
            optimiser.zero_grad()
            altered = augment(samples[batch], settings, draw)
            nn.functional.cross_entropy(module(altered), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    module.eval()


def augment(
    samples: torch.Tensor, settings: Mapping[str, object], draw: torch.Generator
) -> torch.Tensor:
    """The same movement by somebody else: worn askew, on the other wrist, faster, shakier.

    Args:
        samples: float32 [batch, samples, 6], acceleration and rotation.
        settings: ``turn`` (standard deviation about each axis, radians), ``mirror`` (share of
            windows), ``warp`` (of the logarithm of speed), ``noise`` (in standard deviations).
        draw: all chance comes from it.
    """
    count = len(samples)
    altered = _warped(samples, _number(settings, "warp"), draw)
    altered = _turned(altered, _number(settings, "turn"), draw)
    mirrored = torch.rand(count, 1, 1, generator=draw) < _number(settings, "mirror")
    altered = torch.where(mirrored, altered * torch.tensor(MIRROR), altered)
    noise = _number(settings, "noise") * samples.std((0, 1))
    return altered + noise * torch.randn(samples.shape, generator=draw)


def _turned(samples: torch.Tensor, turn: float, draw: torch.Generator) -> torch.Tensor:
    """Turn both vectors of each window about a random axis."""
    x, y, z = (turn * torch.randn(3, len(samples), generator=draw)).unbind()
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], 1).reshape(-1, 3, 3)
    matrix = torch.linalg.matrix_exp(cross).transpose(1, 2)
    return torch.cat([samples[..., :3] @ matrix, samples[..., 3:] @ matrix], 2)


def _warped(samples: torch.Tensor, warp: float, draw: torch.Generator) -> torch.Tensor:
    """Play each window faster or slower about its middle; its ends are mirrored where they lack."""
    length = samples.shape[1]
    speed = (warp * torch.randn(len(samples), 1, generator=draw)).clamp(-0.5, 0.5).exp()
    places = ((torch.arange(length) - length / 2) * speed + length / 2).abs()
    places = torch.where(places > length - 1, 2 * (length - 1) - places, places)
    places = places.clamp(0, length - 1 - 1e-3)
    first = places.long()
    share = (places - first).unsqueeze(2)
    wide = first.unsqueeze(2).expand_as(samples)
    return samples.gather(1, wide) * (1 - share) + samples.gather(1, wide + 1) * share


def _number(settings: Mapping[str, object], name: str) -> float:
    value = settings[name]
    assert isinstance(value, int | float)
    return float(value)
