"""Ordinary architectures with seeded weights, and a few that no exporter takes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from converters.floating import FloatModel
from converters.tensors import TensorSpec

ROWS = 32
WINDOW = (200, 6)
"""Samples and channels of a raw window, as the watch sends them."""


class Example(NamedTuple):
    """A model and rows that it takes, float32 unless the input's spec says otherwise."""

    model: FloatModel
    feeds: dict[str, np.ndarray]


class Separable(nn.Module):
    """Depthwise-separable blocks with batch norm; [batch, 3, 32, 32] -> [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.blocks = nn.Sequential(_separable(8, 16, 1), _separable(16, 24, 2))
        self.head = nn.Linear(24, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


def _separable(given: int, made: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, given, 3, stride=stride, padding=1, groups=given, bias=False),
        nn.BatchNorm2d(given),
        nn.ReLU6(),
        nn.Conv2d(given, made, 1, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU6(),
    )


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, made, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(made)
        self.second = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(made)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or given != made:
            self.shortcut = nn.Sequential(
                nn.Conv2d(given, made, 1, stride=stride, bias=False), nn.BatchNorm2d(made)
            )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        kept = self.shortcut(rows)
        rows = torch.relu(self.norm1(self.first(rows)))
        return torch.relu(self.norm2(self.second(rows)) + kept)


class Residual(nn.Module):
    """A small ResNet; [batch, 1, 28, 28] -> [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.body = nn.Sequential(ResidualBlock(8, 8, 1), ResidualBlock(8, 16, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.body(self.stem(image))).flatten(1))


class Recurrent(nn.Module):
    """A GRU or LSTM over a short window; [batch, 20, 6] -> [batch, 4]."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.cells = kind(6, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        answered, _ = self.cells(window)
        return self.head(answered[:, -1])


class Attention(nn.Module):
    """Multi-head self-attention written out, as small models for devices have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        _, steps, width = rows.shape
        parts = self.mix(rows).reshape(-1, steps, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)
        seen = scores.softmax(-1) @ value
        return self.out(seen.transpose(1, 2).reshape(-1, steps, width))


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows + self.attention(self.norm1(rows))
        return rows + self.feed(self.norm2(rows))


class Transformer(nn.Module):
    """Patches of a raw window through two encoder layers; [batch, 200, 6] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(60, 32)
        self.place = nn.Parameter(torch.randn(20, 32) * 0.1)
        self.layers = nn.Sequential(EncoderLayer(32, 4), EncoderLayer(32, 4))
        self.head = nn.Linear(32, 5)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        rows = self.embed(window.reshape(-1, 20, 60)) + self.place
        return self.head(self.layers(rows).mean(1))


class TorchTransformer(nn.Module):
    """``nn.TransformerEncoder`` as the library has it; [batch, 20, 16] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(tokens).mean(1))


class TwoInputs(nn.Module):
    """An image and a vector; [batch, 1, 16, 16] and [batch, 5] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()
        )
        self.side = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.head = nn.Linear(8 * 16 + 8, 3)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat((self.eye(image), self.side(vector)), 1))


class TwoHeads(nn.Module):
    """One trunk, a class and a bounded quantity; [batch, 12] -> [batch, 4] and [batch, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.kind = nn.Linear(16, 4)
        self.effort = nn.Sequential(nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.trunk(features)
        return self.kind(rows), self.effort(rows)


class Windows(nn.Module):
    """A 1-D CNN on raw windows; [batch, 200, 6] -> [batch, 5]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(6, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(2 * width, 5)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(window.transpose(1, 2)))


class Tokens(nn.Module):
    """Whole numbers in: an embedding; int32 [batch, 12] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens).mean(1))


class Picking(nn.Module):
    """Keeps the rows that pass a test: how many depends on the data."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[rows.sum(1) > 0]


class DataDependent(nn.Module):
    """A data-dependent size in ``chooser``; [batch, 8] -> [?, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Picking()
        self.head = nn.Linear(8, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.chooser(features))


class Branch(nn.Module):
    """Python control flow on a value."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * 2 if rows.sum() > 0 else rows


class DataBranch(nn.Module):
    """Another path for other data, in ``gate``; [batch, 8] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Branch()
        self.head = nn.Linear(8, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.gate(features))


class Spectrum(nn.Module):
    """Singular values of each row taken as a matrix."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(rows.reshape(-1, 4, 4), full_matrices=False).S


class SingularValues(nn.Module):
    """``linalg.svd`` in ``spectrum``; [batch, 16] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = Spectrum()
        self.head = nn.Linear(4, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.spectrum(features))


class Fourier(nn.Module):
    """A complex transform and its inverse."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft(torch.fft.fft(rows.to(torch.complex64)) ** 2).real


class ComplexFourier(nn.Module):
    """Complex numbers in ``mixer``; [batch, 16] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = Fourier()
        self.head = nn.Linear(16, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixer(features))


@torch.library.custom_op("serinus_corpus::strange", mutates_args=())
def strange(rows: torch.Tensor) -> torch.Tensor:
    """An operator that only this process knows."""
    return torch.from_numpy(np.sin(rows.numpy()) * rows.numpy())


@strange.register_fake
def _strange_shape(rows: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(rows)


class Calling(nn.Module):
    """Calls the strange operator."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return strange(rows)


class CustomOperator(nn.Module):
    """An operator of one's own in ``odd``; [batch, 8] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = Calling()
        self.head = nn.Linear(8, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.odd(features))


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape)


def _settle_norms(module: nn.Module, feeds: dict[str, np.ndarray]) -> None:
    """Give batch norms statistics and weights that are not the neutral ones."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    if norms:
        module.train()
        with torch.no_grad():
            for _ in range(20):
                module(*(torch.from_numpy(array) for array in feeds.values()))


def _example(
    make: Callable[[], nn.Module],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Callable[[], Example]:
    def build() -> Example:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            module = make()
            draw = np.random.default_rng(7)
            feeds = {spec.name: _rows(draw, spec) for spec in inputs}
            _settle_norms(module, feeds)
        module.eval()
        return Example(FloatModel(module=module, inputs=inputs, outputs=outputs), feeds)

    return build


def _rows(draw: np.random.Generator, spec: TensorSpec) -> np.ndarray:
    if spec.dtype != "float32":
        return draw.integers(0, 50, (ROWS, *spec.shape)).astype(spec.dtype)
    return draw.normal(size=(ROWS, *spec.shape)).astype(np.float32)


LOGITS = "logits"

CORPUS: dict[str, Callable[[], Example]] = {
    "separable": _example(Separable, (_spec("image", 3, 32, 32),), (_spec(LOGITS, 10),)),
    "residual": _example(Residual, (_spec("image", 1, 28, 28),), (_spec(LOGITS, 10),)),
    "gru": _example(lambda: Recurrent(nn.GRU), (_spec("window", 20, 6),), (_spec(LOGITS, 4),)),
    "lstm": _example(lambda: Recurrent(nn.LSTM), (_spec("window", 20, 6),), (_spec(LOGITS, 4),)),
    "transformer": _example(Transformer, (_spec("window", *WINDOW),), (_spec(LOGITS, 5),)),
    "torch-transformer": _example(
        TorchTransformer, (_spec("tokens", 20, 16),), (_spec(LOGITS, 5),)
    ),
    "two-inputs": _example(
        TwoInputs, (_spec("image", 1, 16, 16), _spec("vector", 5)), (_spec(LOGITS, 3),)
    ),
    "two-heads": _example(
        TwoHeads, (_spec("features", 12),), (_spec("kind", 4), _spec("effort", 1))
    ),
    "windows": _example(Windows, (_spec("window", *WINDOW),), (_spec(LOGITS, 5),)),
    "tokens": _example(
        Tokens, (TensorSpec(name="tokens", shape=(12,), dtype="int32"),), (_spec(LOGITS, 3),)
    ),
}
"""Name -> builder of a model that converts to every format."""

REFUSED: dict[str, Callable[[], Example]] = {
    "data-dependent": _example(DataDependent, (_spec("features", 8),), (_spec(LOGITS, 2),)),
    "data-branch": _example(DataBranch, (_spec("features", 8),), (_spec(LOGITS, 2),)),
    "svd": _example(SingularValues, (_spec("features", 16),), (_spec(LOGITS, 2),)),
    "complex-fft": _example(ComplexFourier, (_spec("features", 16),), (_spec(LOGITS, 2),)),
    "custom-operator": _example(CustomOperator, (_spec("features", 8),), (_spec(LOGITS, 2),)),
}
"""Name -> builder of a model that some exporter has to refuse."""
