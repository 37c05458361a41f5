"""The network of digits: an 8x8 image in, logits out, scaling inside."""

from collections.abc import Mapping

import torch
from torch import nn

from converters.data.dataset import Rows
from converters.layers import Scaled, Standardise
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition

LIMIT = 4.0
"""Scaled pixels are clipped here."""


class Image(nn.Module):
    """[batch, rows, columns] -> [batch, 1, rows, columns]: one channel of grey."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Add the channel."""
        return rows.unsqueeze(1)


def _block(given: int, made: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(given, made, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(),
    ]


def network(
    definition: WindowDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make an untrained network: three 3x3 convolutions, the last two halving the image."""
    width, dropout = settings.get("width", 16), settings.get("dropout", 0.2)
    assert isinstance(width, int)
    assert isinstance(dropout, float)
    body = nn.Sequential(
        Image(),
        *_block(1, width, 1),
        *_block(width, 2 * width, 2),
        *_block(2 * width, 2 * width, 2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width * 4, classes),
    )
    # Pixels share one scale: that a column is mostly paper says something.
    return Scaled(Standardise((1, 1), LIMIT), body)


def train(
    module: nn.Module, rows: Rows, evaluator: Evaluator, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place: AdamW on cross-entropy under a one-cycle rate, images shifted a little."""
    assert isinstance(module, Scaled)
    epochs, shift = settings.get("epochs", 20), settings.get("shift", 0.5)
    assert isinstance(epochs, int)
    assert isinstance(shift, float)
    images, labels = torch.from_numpy(rows.samples), torch.from_numpy(rows.labels)
    module.scaling.fit(images)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.01)
    steps = epochs * -(-len(labels) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=draw).split(128):
            optimiser.zero_grad()
            moved = shifted(images[batch], shift, draw)
            nn.functional.cross_entropy(module(moved), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    module.eval()


def shifted(images: torch.Tensor, pixels: float, draw: torch.Generator) -> torch.Tensor:
    """Shift, turn and scale each image a little; what comes in from outside is paper.

    Args:
        images: float32 [batch, 8, 8].
        pixels: standard deviation of the shift.
        draw: all chance comes from it.
    """
    count, side = len(images), images.shape[-1]
    turn = 0.1 * torch.randn(count, generator=draw)
    size = 1 + 0.08 * torch.randn(count, generator=draw)
    moves = 2 * pixels / side * torch.randn(count, 2, generator=draw)
    cosine, sine = size * turn.cos(), size * turn.sin()
    rows = [
        torch.stack([cosine, -sine, moves[:, 0]], 1),
        torch.stack([sine, cosine, moves[:, 1]], 1),
    ]
    grid = nn.functional.affine_grid(
        torch.stack(rows, 1), [count, 1, side, side], align_corners=False
    )
    moved = nn.functional.grid_sample(images.unsqueeze(1), grid, align_corners=False)
    return moved.squeeze(1)
