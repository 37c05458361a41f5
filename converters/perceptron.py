"""A small perceptron on scaled features: what most recipes of tabular features need."""

from collections.abc import Mapping

import torch
from torch import nn

from converters.data.dataset import Rows
from converters.layers import Scaled, Standardise

LIMIT = 4.0
"""Scaled features are clipped here, so that a rare extreme does not widen the int8 range."""


def untrained(features: int, classes: int, settings: Mapping[str, object]) -> nn.Module:
    """Make a classifier: one hidden layer, or a linear one for ``hidden = 0``.

    Args:
        features: number of inputs.
        classes: number of outputs.
        settings: ``hidden`` units (64) and ``dropout`` (.3).
    """
    hidden, dropout = settings.get("hidden", 64), settings.get("dropout", 0.3)
    assert isinstance(hidden, int)
    assert isinstance(dropout, float)
    layers: list[nn.Module] = [nn.Linear(features, classes)]
    if hidden:
        layers = [
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        ]
    return Scaled(Standardise((features,), LIMIT), nn.Sequential(*layers))


def fit(module: nn.Module, rows: Rows, settings: Mapping[str, object], seed: int) -> None:
    """Train in place: AdamW on cross-entropy, with noise on the scaled features.

    Args:
        module: from :func:`untrained`.
        rows: to train on.
        settings: ``epochs`` (25), ``batch`` rows (128), and ``noise`` (.3), in deviations.
        seed: of batches and noise.
    """
    assert isinstance(module, Scaled)
    epochs, noise = settings.get("epochs", 25), settings.get("noise", 0.3)
    size = settings.get("batch", 128)
    assert isinstance(epochs, int)
    assert isinstance(noise, float)
    assert isinstance(size, int)
    features, labels = torch.from_numpy(rows.features), torch.from_numpy(rows.labels)
    module.scaling.fit(features)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    module.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(labels), generator=draw), size):
            chosen = features[batch]
            shift = noise * torch.randn(chosen.shape, generator=draw) / module.scaling.gain
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(module(chosen + shift), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
    module.eval()
