"""From a window of raw samples to a model's inputs, for training, backfill and devices alike.

Samples become int32 multiples of each channel's ``lsb``; sums are int64, which no order of
addition can change; one rounding to float32 stands at the end. So a feature's bytes do not
depend on batching, chunking, restarts or the processor. Every operation left in floating point
(one division, one square root, one multiplication) is correctly rounded by IEEE 754.
"""

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features.definition import FeatureDefinition, Operation

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Evaluator:
    """The compiled form of one feature definition. Immutable; safe to share among threads."""

    def __init__(self, definition: FeatureDefinition) -> None:
        self.definition = definition
        self._lsb = np.array([entry.lsb for entry in definition.inputs])
        self._low = np.array([round(entry.low / entry.lsb) for entry in definition.inputs])
        self._high = np.array([round(entry.high / entry.lsb) for entry in definition.inputs])
        position = {name: index for index, name in enumerate(definition.input_names)}
        self._plan: list[tuple[Operation, Int64, Int64]] = []
        for operation in dict.fromkeys(feature.op for feature in definition.features):
            pairs = [
                (column, position[feature.input])
                for column, feature in enumerate(definition.features)
                if feature.op == operation
            ]
            columns, inputs = np.array(pairs, dtype=np.int64).T
            self._plan.append((operation, columns, inputs))

    def quantise(self, samples: npt.ArrayLike) -> Int32:
        """Round raw samples to multiples of each channel's lsb and clip them to its range.

        Args:
            samples: float32 [..., inputs] in the channels' units; other dtypes are rounded to
                float32 first, so that every source of the same values agrees.

        Returns:
            int32 of the same shape.

        Raises:
            InvalidInput: not numeric, wrong number of channels, NaN or infinity.
        """
        return self._steps(self.checked(samples))

    def checked(self, samples: npt.ArrayLike) -> Float32:
        """The samples as a new float32 array; raises like :meth:`quantise`."""
        values = _as_float32(samples)
        names = self.definition.input_names
        if values.ndim == 0 or values.shape[-1] != len(names):
            raise InvalidInput(
                f"samples have shape {list(values.shape)}; the last axis has to hold the "
                f"{len(names)} channels {', '.join(names)}"
            )
        finite = np.isfinite(values)
        if not finite.all():
            broken = np.flatnonzero(~finite.reshape(-1, len(names)).all(axis=0))
            channels = ", ".join(names[index] for index in broken)
            raise InvalidInput(
                f"NaN or infinity in {channels}; send only finite samples that fit float32"
            )
        return values

    def rounded(self, samples: npt.ArrayLike) -> Float32:
        """The samples that features are computed from: multiples of lsb, within the range.

        Models that take raw windows get these, in training as on the device. Arguments and errors
        as in :meth:`quantise`; float32 of the same shape.
        """
        rounded: Float32 = (self.quantise(samples) * self._lsb).astype(np.float32)
        return rounded

    def _steps(self, values: Float32) -> Int32:
        steps = values.astype(np.float64)
        steps /= self._lsb
        np.rint(steps, out=steps)
        np.clip(steps, self._low, self._high, out=steps)
        return steps.astype(np.int32)

    def evaluate(self, quantised: Int32) -> Float32:
        """Compute all features of complete windows.

        Args:
            quantised: int32 [batch, samples, inputs] from :meth:`quantise`.

        Returns:
            float32 [batch, features] in the definition's order.

        Raises:
            InvalidInput: the window has another number of samples.
            TypeError: the samples are not quantised.
        """
        if quantised.dtype != np.int32:
            raise TypeError(f"quantised samples are int32, not {quantised.dtype}")
        expected = (self.definition.window.samples, len(self.definition.inputs))
        if quantised.ndim != 3 or quantised.shape[1:] != expected:
            raise InvalidInput(
                f"windows have shape {list(quantised.shape)}; needed is "
                f"[batch, {expected[0]}, {expected[1]}]"
            )
        # Channels first, so that every reduction runs over contiguous memory.
        series = np.ascontiguousarray(quantised.transpose(0, 2, 1))
        sums = _Sums(series)
        features = np.empty((len(series), len(self.definition.features)), dtype=np.float32)
        for operation, columns, inputs in self._plan:
            features[:, columns] = (sums.values(operation) * self._scale(operation))[:, inputs]
        return features

    def _scale(self, operation: Operation) -> Float64:
        if operation == "zero_crossings":
            return np.ones_like(self._lsb)
        return self._lsb**2 if operation == "energy" else self._lsb


def _as_float32(samples: npt.ArrayLike) -> Float32:
    try:
        values = np.asarray(samples)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"samples are not an array of numbers: {error}") from error
    if values.dtype.kind not in "fiu":
        raise InvalidInput(f"samples are {values.dtype}; send an array of real numbers")
    # What is too large for float32 becomes infinite here, and is refused as such.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


class _Sums:
    """Exact integer reductions of int32 [batch, inputs, samples], each made once when needed."""

    def __init__(self, series: Int32) -> None:
        self._series = series
        self._wide = series.astype(np.int64)
        self._count = series.shape[2]
        self._sum: Int64 = self._wide.sum(axis=2)
        self._squares: Int64 | None = None

    def values(self, operation: Operation) -> Float64:
        """Float64 [batch, inputs] in multiples of lsb (of lsb squared for the energy)."""
        values: Float64
        match operation:
            case "mean":
                values = self._sum / self._count
            case "std":
                # n * sum(x^2) - sum(x)^2 is exact; dividing it by n^2 gives the variance.
                spread = self._count * self.squares - self._sum**2
                values = np.sqrt(spread.astype(np.float64)) / self._count
            case "energy":
                values = self.squares / self._count
            case "min":
                values = self._series.min(axis=2).astype(np.float64)
            case "max":
                values = self._series.max(axis=2).astype(np.float64)
            case "range":
                values = self.values("max") - self.values("min")
            case "zero_crossings":
                negative = self._series < 0
                values = (negative[:, :, 1:] != negative[:, :, :-1]).sum(axis=2).astype(np.float64)
        return values

    @property
    def squares(self) -> Int64:
        """Sum of squares, int64 [batch, inputs]."""
        if self._squares is None:
            self._squares = np.einsum("bin,bin->bi", self._wide, self._wide)
        return self._squares


def quantise(definition: FeatureDefinition, samples: npt.ArrayLike) -> Int32:
    """:meth:`Evaluator.quantise` for callers that need it once."""
    return Evaluator(definition).quantise(samples)


def evaluate(definition: FeatureDefinition, quantised: Int32) -> Float32:
    """:meth:`Evaluator.evaluate` for callers that need it once."""
    return Evaluator(definition).evaluate(quantised)
