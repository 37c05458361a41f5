"""Fits the simple baseline: multinomial logistic regression, in float64, to its one optimum."""

import numpy as np

from converters.data.dataset import Rows
from converters.recipe import FallbackRecipe
from edge_core.baseline import LogisticBaseline
from edge_core.features.definition import FeatureDefinition

STEPS = 200


def fit(
    definition: FeatureDefinition, rows: Rows, classes: int, recipe: FallbackRecipe
) -> LogisticBaseline:
    """Fit on standardised features with an L2 penalty; the result does not depend on a seed."""
    import torch

    names = definition.feature_names
    chosen = rows.features[:, [names.index(name) for name in recipe.features]].astype(np.float64)
    mean, scale = chosen.mean(0), chosen.std(0) + 1e-9
    inputs = torch.from_numpy((chosen - mean) / scale)
    labels = torch.from_numpy(rows.labels)
    weights = torch.zeros(inputs.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        cross = torch.nn.functional.cross_entropy(inputs @ weights + bias, labels)
        total: torch.Tensor = cross + recipe.l2 * (weights**2).sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return LogisticBaseline(
        features=recipe.features,
        mean=mean.tolist(),
        scale=scale.tolist(),
        weights=weights.detach().numpy().tolist(),
        bias=bias.detach().numpy().tolist(),
    )
