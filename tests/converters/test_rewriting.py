from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from converters.capturing import capture
from converters.floating import FloatModel
from converters.quiet import silenced
from converters.rewriting import fold_batch_norms, widen_conv1d
from converters.tensors import TensorSpec
from tests.converters.corpus import CORPUS

ROWS = 4


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silenced():
        yield


def _settled(module: nn.Module) -> nn.Module:
    """With batch norms that are not neutral."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 2)
    return module.eval()


def _rewritten(module: nn.Module, *shape: int) -> tuple[torch.fx.GraphModule, set[str]]:
    """Rewrite, check that the answers stay, and give the operators that are left."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        rows = torch.randn(ROWS, *shape)
        module = _settled(module)
    with torch.no_grad():
        expected = module(rows)
        model = FloatModel(
            module=module,
            inputs=(TensorSpec(name="x", shape=shape),),
            outputs=(TensorSpec(name="y", shape=tuple(expected.shape[1:])),),
        )
        graph = capture(model)
        fold_batch_norms(graph)
        widen_conv1d(graph)
        torch.testing.assert_close(graph(rows), expected, rtol=1e-4, atol=1e-5)
    called = [node for node in graph.graph.nodes if node.op == "call_function"]
    return graph, {str(node.target).split(".")[1] for node in called}


class Twice(nn.Module):
    """A convolution whose answer is also used beside its batch norm: it must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made = self.conv(rows)
        return self.norm(made) + made


class Shared(nn.Module):
    """One convolution that is called twice, before different batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False)])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            rows = norm(self.conv(rows))
        return rows


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4)), (2, 8, 8)),
        (nn.Sequential(nn.ConvTranspose2d(2, 4, 2, stride=2), nn.BatchNorm2d(4)), (2, 8, 8)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (3,)),
        (nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, affine=False)), (3,)),
        (nn.Sequential(nn.Conv1d(2, 4, 3, padding="same"), nn.BatchNorm1d(4)), (2, 9)),
        (Shared(), (2, 9)),
    ],
)
def test_batch_norms_vanish_into_the_layer_before(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    _, left = _rewritten(module, *shape)
    assert not left & {"batch_norm", "mul"}


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Twice(), (2, 8, 8)),
        (nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), (2, 8, 8)),
        (nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(3)), (3, 5)),
        (nn.Sequential(nn.ConvTranspose2d(2, 4, 2, groups=2), nn.BatchNorm2d(4)), (2, 8, 8)),
    ],
)
def test_other_batch_norms_become_a_product_and_a_sum(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    _, left = _rewritten(module, *shape)
    assert "batch_norm" not in left
    assert "mul" in left


class Excited(nn.Module):
    """Leaves the widened part and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1, groups=4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made = self.conv(rows)
        return self.conv(made * made.mean(2, keepdim=True).sigmoid())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(3, 6, 5, stride=2, padding=3, dilation=2), (3, 30)),
        (nn.Sequential(nn.Conv1d(3, 6, 5, padding="same"), nn.GELU(), nn.AvgPool1d(3)), (3, 30)),
        (nn.Sequential(nn.Conv1d(3, 6, 3), nn.MaxPool1d(3, 2, 1, ceil_mode=True)), (3, 30)),
        (nn.Sequential(nn.Conv1d(3, 6, 3), nn.AdaptiveAvgPool1d(4), nn.Flatten()), (3, 30)),
        (Excited(), (4, 16)),
    ],
)
def test_1d_convolutions_become_2d_ones(module: nn.Module, shape: tuple[int, ...]) -> None:
    _, left = _rewritten(module, *shape)
    assert "conv2d" in left
    assert not left & {"conv1d", "avg_pool1d", "max_pool1d", "adaptive_avg_pool1d"}


def test_nothing_is_reshaped_between_widened_layers() -> None:
    graph, _ = _rewritten(CORPUS["windows"]().model.module, 200, 6)
    turned: list[Any] = [n for n in graph.graph.nodes if "squeeze" in str(n.target)]
    assert [node.target._opname for node in turned] == ["unsqueeze", "squeeze"]


def test_the_trained_weights_stay() -> None:
    model = CORPUS["windows"]().model
    before = model.digest()
    graph = capture(model)
    fold_batch_norms(graph)
    widen_conv1d(graph)
    assert model.digest() == before
