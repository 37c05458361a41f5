"""The networks of watch_activity: features in, logits out, scaling inside."""

from collections.abc import Mapping

import torch
from torch import nn

from converters.dataset import Rows
from converters.layers import Scaled, Standardise
from edge_core.features.definition import FeatureDefinition
from edge_core.features.evaluation import Evaluator

LIMIT = 4.0
"""Scaled features are clipped here, so that a rare extreme does not widen the int8 range."""


def network(
    definition: FeatureDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make an untrained classifier: a small perceptron, or a linear layer for ``hidden = 0``."""
    hidden, dropout = settings.get("hidden", 64), settings.get("dropout", 0.3)
    assert isinstance(hidden, int)
    assert isinstance(dropout, float)
    features = len(definition.feature_names)
    layers: list[nn.Module] = [nn.Linear(features, classes)]
    if hidden:
        layers = [
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        ]
    return Scaled(Standardise((features,), LIMIT), nn.Sequential(*layers))


def train(
    module: nn.Module, rows: Rows, evaluator: Evaluator, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place: AdamW on cross-entropy, with noise on the scaled features."""
    assert isinstance(module, Scaled)
    epochs, noise = settings.get("epochs", 25), settings.get("noise", 0.3)
    assert isinstance(epochs, int)
    assert isinstance(noise, float)
    features, labels = torch.from_numpy(rows.features), torch.from_numpy(rows.labels)
    module.scaling.fit(features)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=draw).split(128):
            chosen = features[batch]
            shift = noise * torch.randn(chosen.shape, generator=draw) / module.scaling.gain
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(chosen + shift), labels[batch]).backward()
            optimiser.step()
    module.eval()
