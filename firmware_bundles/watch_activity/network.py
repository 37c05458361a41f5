"""The networks of watch_activity: features in, logits out, scaling inside."""

from collections.abc import Mapping

from torch import nn

from converters import perceptron
from converters.data.dataset import Rows
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition


def network(
    definition: WindowDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make an untrained classifier: a small perceptron, or a linear layer for ``hidden = 0``."""
    return perceptron.untrained(len(definition.feature_names), classes, settings)


def train(
    module: nn.Module, rows: Rows, evaluator: Evaluator, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place."""
    perceptron.fit(module, rows, settings, seed)
