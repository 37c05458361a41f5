"""The networks of flight_delay: features in, logits out, scaling inside."""

from collections.abc import Mapping

from torch import nn

from converters import perceptron
from converters.data.dataset import Rows
from edge_core.features.request_definition import RequestDefinition


def network(
    definition: RequestDefinition, classes: int, settings: Mapping[str, object]
) -> nn.Module:
    """Make an untrained classifier: a small perceptron, or logistic regression without units."""
    return perceptron.untrained(len(definition.feature_names), classes, settings)


def train(
    module: nn.Module, rows: Rows, evaluator: None, settings: Mapping[str, object], seed: int
) -> None:
    """Train in place."""
    perceptron.fit(module, rows, settings, seed)
