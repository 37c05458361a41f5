"""Quantisation-aware fine-tuning: weights learn to live on the int8 grid.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 3. Products run with rounded weights and inputs
while gradients pass straight through the rounding (torch's own fake-quantise kernels).

torchao 0.18 was looked at first: its eager API rounds ``Linear`` and ``Embedding`` alone, with
ranges taken anew from every batch, and its graph API hands back another structure. Here calls are
caught on their way into torch, so that one mechanism serves linear layers and convolutions,
modules and exported programs, and the module is left as it was but for its weights.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from converters.floating import FloatModel
from converters.refusal import StageFailed
from converters.tensors import Array, Feeds, rows_of

KEPT = 0.9
"""Share of the old range that the moving minimum and maximum keep at each batch."""
FREEZE_AFTER = 0.5
"""Share of the epochs after which ranges stand still, so that weights settle."""

DIVERGED = "quantisation-aware training diverged; lower its learning_rate"

_ATEN = torch.ops.aten
PRODUCTS: frozenset[object] = frozenset(
    {
        torch.nn.functional.linear,
        torch.conv1d,
        torch.conv2d,
        _ATEN.linear.default,
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
    }
)
"""Calls with an input, a weight [out, ...] and a bias; each output channel has its own scale."""

Mode = Literal["measure", "round"]


def fine_tune(
    model: FloatModel,
    rows: Feeds,
    *,
    labels: Array | None = None,
    teacher: Feeds | None = None,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch: int = 64,
    weight_bits: int = 8,
) -> FloatModel:
    """Adapt a trained model's weights to int8; export and static quantisation stay as they are.

    The copy that is returned has the same structure. Weights of linear layers and convolutions
    stand on their int8 grid (symmetric, per output channel), so that quantising them loses
    nothing more. Batch norms and dropout stay as in evaluation; folding a batch norm later scales
    a whole channel and its grid alike. The module of ``model`` is left untouched.

    Weights inside ``nn.MultiheadAttention`` and recurrent layers are not caught; they train, but
    unrounded.

    Args:
        model: in evaluation mode.
        rows: training rows, by input name.
        labels: class numbers int64 [rows] for the first output; adds cross-entropy to the loss.
        teacher: wanted answers by output name, float32 [rows, ...]; adds the mean square
            difference over the answers' variance, which is the square of the numeric error. The
            float model's own answers (``model.run(rows)``) need no labels.
        epochs: passes over all rows, after one that measures ranges.
        learning_rate: Adam's, falling to 0 along a cosine.
        seed: of the order of rows.
        batch: rows per step.
        weight_bits: 8; 7 for files that are quantised with ``reduce_range``.

    Raises:
        StageFailed: no linear layer or convolution was called, or training diverged.
        ValueError: neither labels nor teacher is given.
    """
    if labels is None and teacher is None:
        raise ValueError("fine-tuning needs labels, a teacher's answers, or both")
    with warnings.catch_warnings():
        # Copying an exported program meets torch's own deprecated names.
        warnings.simplefilter("ignore", FutureWarning)
        module = copy.deepcopy(model.module)
    tuned = FloatModel(module=module, inputs=model.inputs, outputs=model.outputs)
    goal = _Goal(tuned, rows, labels, teacher)
    rounding = Rounding(weight_bits)
    draw = torch.Generator().manual_seed(seed)
    with _trainable(module) as weights, _one_thread():
        with rounding.doing("measure"), torch.no_grad():
            for places in _batches(torch.arange(rows_of(rows)), batch):
                goal.answers(places)
        if not rounding.layers:
            raise StageFailed(
                "quantisation-aware training found no linear layer or convolution; "
                "leave qat out of the recipe for this model"
            )
        optimiser = torch.optim.Adam(weights, lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, epochs))
        for epoch in range(epochs):
            rounding.frozen = epoch >= FREEZE_AFTER * epochs
            for places in _batches(torch.randperm(rows_of(rows), generator=draw), batch):
                with rounding.doing("round"):
                    loss = goal.loss(places)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimiser.step()
            schedule.step()
        _settle(rounding, module)
    return tuned


def rounded(
    model: FloatModel, calibration: Feeds, rows: Feeds, weight_bits: int = 8
) -> dict[str, Array]:
    """What static int8 will answer, simulated: rounded weights and product inputs.

    Args:
        model: in evaluation mode.
        calibration: rows that fix the ranges by their true minimum and maximum.
        rows: to answer, by input name.
        weight_bits: as for :func:`fine_tune`.

    Returns:
        By output name, float32 [rows, ...].
    """
    rounding = Rounding(weight_bits)
    with rounding.doing("measure"):
        model.run(calibration)
    rounding.frozen = True
    with rounding.doing("round"):
        return model.run(rows)


class Rounding(TorchFunctionMode):
    """Catches products on their way into torch, to measure their inputs or to round them.

    Ranges belong to a weight: a layer that is called twice has one range.
    """

    def __init__(self, weight_bits: int) -> None:
        super().__init__()
        self._largest = 2 ** (weight_bits - 1) - 1
        self._mode: Mode = "measure"
        self.frozen = False
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Weight's identity -> the weight and its input's minimum and maximum, float32 [2]."""

    @contextmanager
    def doing(self, mode: Mode) -> Iterator[None]:
        """Catch what is called inside."""
        self._mode = mode
        with self:
            yield

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        # Products of two activations (attention) have no weight of their own and stay as they are.
        if func not in PRODUCTS or len(args) < 2 or not isinstance(args[1], torch.nn.Parameter):
            return func(*args, **given)
        rows, weight, *rest = args
        if self._mode == "measure" or not self.frozen:
            self._measure(rows.detach(), weight)
        if self._mode == "measure":
            return func(*args, **given)
        return func(self.input(rows, weight), self.weight(weight), *rest, **given)

    def _measure(self, rows: torch.Tensor, weight: torch.Tensor) -> None:
        """True minimum and maximum at first, moving ones while training."""
        now = torch.stack(rows.aminmax())
        if id(weight) in self.layers:
            before = self.layers[id(weight)][1]
            if self._mode == "round":
                now = KEPT * before + (1 - KEPT) * now
            else:
                now = torch.stack([before[0].minimum(now[0]), before[1].maximum(now[1])])
        self.layers[id(weight)] = (weight, now)

    def input(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A product's input on its affine int8 grid, which always holds 0."""
        low, high = self.layers[id(weight)][1].tolist()
        if not math.isfinite(high - low):
            raise StageFailed(DIVERGED)
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 1e-8)
        zero = int(np.clip(round(-128 - low / scale), -128, 127))
        return torch.fake_quantize_per_tensor_affine(rows, scale, zero, -128, 127)

    def weight(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight on its grid: symmetric, one scale for each output channel."""
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.dim())))
        scale = (largest / self._largest).clamp(min=1e-8)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero, 0, -self._largest, self._largest
        )


class _Goal:
    """Rows, what is wanted for them, and how far the answers are from it."""

    def __init__(
        self, model: FloatModel, rows: Feeds, labels: Array | None, teacher: Feeds | None
    ) -> None:
        self._module = model.module
        self._rows = [torch.from_numpy(rows[spec.name]) for spec in model.inputs]
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._wanted = teacher and [torch.from_numpy(teacher[s.name]) for s in model.outputs]
        self._spread = [max(float(w.var()), 1e-12) for w in self._wanted or ()]

    def answers(self, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answered = self._module(*(rows[places] for rows in self._rows))
        return tuple(answered) if isinstance(answered, tuple | list) else (answered,)

    def loss(self, places: torch.Tensor) -> torch.Tensor:
        answered = self.answers(places)
        total = torch.zeros(())
        if self._labels is not None:
            total = total + torch.nn.functional.cross_entropy(answered[0], self._labels[places])
        for own, wanted, spread in zip(answered, self._wanted or (), self._spread, strict=False):
            total = total + ((own - wanted[places]) ** 2).mean() / spread
        return total


def _batches(order: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def _settle(rounding: Rounding, module: torch.nn.Module) -> None:
    """Put caught weights onto their grid, and see that training did not run away."""
    with torch.no_grad():
        for weight, _ in rounding.layers.values():
            weight.copy_(rounding.weight(weight))
    if not all(bool(w.isfinite().all()) for w in module.parameters()):
        raise StageFailed(DIVERGED)


@contextmanager
def _trainable(module: torch.nn.Module) -> Iterator[list[torch.nn.Parameter]]:
    """All weights, ready to learn; afterwards as they were, without gradients."""
    weights = [weight for weight in module.parameters() if weight.is_floating_point()]
    wanted = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield weights
    finally:
        for weight, before in zip(weights, wanted, strict=True):
            weight.grad = None
            weight.requires_grad_(before)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
