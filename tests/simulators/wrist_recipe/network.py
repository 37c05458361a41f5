"""A small perceptron."""

from converters import perceptron


def network(definition, classes, settings):
    """Make it."""
    return perceptron.untrained(len(definition.feature_names), classes, settings)


def train(module, rows, evaluator, settings, seed):
    """Train it."""
    perceptron.fit(module, rows, settings, seed)
