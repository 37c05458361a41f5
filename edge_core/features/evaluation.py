"""From a window of raw samples to a model's inputs, for training, backfill and devices alike.

Samples become int32 multiples of each channel's ``lsb``; everything after that is exact or rounded
correctly (:mod:`edge_core.features.reductions`); one rounding to float32 stands at the end. So a
feature's bytes do not depend on batching, chunking, restarts or the processor.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import definition as definitions
from edge_core.features.over_samples import (
    BandEnergy,
    Correlation,
    OverSamples,
    QuantileBins,
    Raw,
    columns,
)
from edge_core.features.reductions import LINEAR, MISSING, SQUARE, Reductions
from edge_core.features.window_definition import WindowDefinition

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

PIECE_SAMPLES = 2048
"""Samples that are quantised in one go."""

Compute = Callable[[Reductions], tuple[Float64, Bool | None]]
"""Values float64 [batch, columns] and which rows lack samples, bool [batch, columns] or [batch, 1];
none where none can."""


class Evaluator:
    """The compiled form of one feature definition. Immutable; safe to share among threads."""

    def __init__(self, definition: WindowDefinition) -> None:
        self.definition = definition
        self.width = len(definition.feature_names)
        """Number of the model's inputs."""
        self._lsb = np.array([entry.lsb for entry in definition.inputs])
        self._low = np.array([round(entry.low / entry.lsb) for entry in definition.inputs])
        self._high = np.array([round(entry.high / entry.lsb) for entry in definition.inputs])
        self._may_miss = np.array([entry.null_policy == "skip" for entry in definition.inputs])
        self._least = np.array([entry.min_valid for entry in definition.inputs])
        self._misses = bool(self._may_miss.any())
        self._position = {name: index for index, name in enumerate(definition.input_names)}
        self._tiled_lsb, self._tiled_low, self._tiled_high = (
            np.tile(each.astype(np.float64), PIECE_SAMPLES)
            for each in (self._lsb, self._low, self._high)
        )
        self._plan = self._planned()

    @cached_property
    def digest(self) -> str:
        """Of the definition."""
        return definitions.digest(self.definition)

    def quantise(self, samples: npt.ArrayLike) -> Int32:
        """Round raw samples to multiples of each channel's lsb and clip them to its range.

        Args:
            samples: float32 [..., inputs] in the channels' units; other dtypes are rounded to
                float32 first, so that every source of the same values agrees. NaN is a missing
                sample where the channel's null policy is ``skip``.

        Returns:
            int32 of the same shape; ``MISSING`` where a sample is missing.

        Raises:
            InvalidInput: not numeric, wrong number of channels, infinity, or NaN in a channel that
                refuses it.
        """
        return self.steps(self.checked(samples))

    def checked(self, samples: npt.ArrayLike) -> Float32:
        """The samples as a new float32 array; raises like :meth:`quantise`."""
        values = _as_float32(samples)
        names = self.definition.input_names
        if values.ndim == 0 or values.shape[-1] != len(names):
            raise InvalidInput(
                f"samples have shape {list(values.shape)}; the last axis has to hold the "
                f"{len(names)} channels {', '.join(names)}"
            )
        fit = np.isfinite(values)
        if self._misses and not fit.all():
            fit |= np.isnan(values) & self._may_miss
        if not fit.all():
            broken = np.flatnonzero(~fit.reshape(-1, len(names)).all(axis=0))
            channels = ", ".join(names[index] for index in broken)
            raise InvalidInput(
                f"NaN or infinity in {channels}; send only finite samples that fit float32"
            )
        return values

    def rounded(self, samples: npt.ArrayLike) -> Float32:
        """The samples that features are computed from: multiples of lsb, within the range.

        Models that take raw windows get these, in training as on the device. Arguments and errors
        as in :meth:`quantise`; float32 of the same shape.

        Raises:
            InvalidInput: a sample is missing: such a model has no value for it.
        """
        steps = self.quantise(samples)
        if self._misses and (steps == MISSING).any():
            raise InvalidInput(
                "samples are missing, and a model of raw windows takes none that are; refuse them "
                "in the feature definition, or use a raw feature with a default"
            )
        rounded: Float32 = (steps * self._lsb).astype(np.float32)
        return rounded

    def steps(self, values: Float32) -> Int32:
        """:meth:`quantise` for samples that :meth:`checked` has returned."""
        # Flat, with every channel's step and limits repeated: numpy is several times quicker on
        # long rows than on a short last axis. In pieces that stay in a processor's cache.
        flat = values.reshape(-1)
        found = np.empty(flat.shape, np.int32)
        piece = np.empty(min(len(flat), len(self._tiled_lsb)))
        for start in range(0, len(flat), len(self._tiled_lsb)):
            part = flat[start : start + len(self._tiled_lsb)]
            count = len(part)
            steps = piece[:count]
            np.divide(part, self._tiled_lsb[:count], out=steps)
            np.rint(steps, out=steps)
            np.minimum(steps, self._tiled_high[:count], out=steps)
            np.maximum(steps, self._tiled_low[:count], out=steps)
            if self._misses:
                steps[np.isnan(part)] = MISSING
            found[start : start + count] = steps
        return found.reshape(values.shape)

    def evaluate(self, quantised: Int32) -> Float32:
        """Compute all features of complete windows.

        Args:
            quantised: int32 [batch, samples, inputs] from :meth:`quantise`.

        Returns:
            float32 [batch, columns] in the definition's order.

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
        reductions = Reductions(series, may_miss=self._misses)
        features = np.empty((len(series), self.width), dtype=np.float32)
        for places, compute, defaults in self._plan:
            values, lacking = compute(reductions)
            features[:, places] = values if lacking is None else np.where(lacking, defaults, values)
        return features

    def _planned(self) -> list[tuple[Int64 | slice, Compute, Float64]]:
        """Operations on one channel's sums by kind, for all channels at once; others singly."""
        plan: list[tuple[Int64 | slice, Compute, Float64]] = []
        by_kind: dict[type[OverSamples], list[tuple[int, OverSamples]]] = {}
        start = 0
        for feature in self.definition.features:
            width = len(columns(feature, self.definition.window.samples))
            compute = self._of_one(feature)
            if compute is None:
                by_kind.setdefault(type(feature), []).append((start, feature))
            else:
                place = slice(start, start + width)
                plan.append((place, compute, np.array([feature.default or 0.0])))
            start += width
        for kind, found in by_kind.items():
            places = np.array([place for place, _ in found])
            inputs = np.array([self._position[feature.input] for _, feature in found])
            defaults = np.array([feature.default or 0.0 for _, feature in found])
            plan.append((places, self._of_kind(kind, inputs), defaults))
        return plan

    def _of_kind(self, kind: type[OverSamples], inputs: Int64) -> Compute:
        scale = np.ones(len(inputs))
        if kind in LINEAR:
            scale = self._lsb[inputs]
        elif kind in SQUARE:
            scale = self._lsb[inputs] ** 2

        every = np.array_equal(inputs, np.arange(len(self._lsb)))

        def compute(reductions: Reductions) -> tuple[Float64, Bool | None]:
            values = reductions.values(kind)
            values = (values if every else values[:, inputs]) * scale
            if reductions.valid is None:
                return values, None
            return values, (reductions.count < self._least)[:, inputs]

        return compute

    def _of_one(self, feature: OverSamples) -> Compute | None:
        """How a feature of its own is computed; none for those that share sums."""
        channel = self._position[feature.input]
        lsb, least = float(self._lsb[channel]), int(self._least[channel])

        def lacking(reductions: Reductions) -> Bool | None:
            if reductions.valid is None:
                return None
            return reductions.count[:, channel, None] < least

        match feature:
            case QuantileBins():
                thresholds = [math.ceil(edge / lsb) for edge in feature.edges]
                return lambda reductions: (
                    reductions.shares(channel, thresholds),
                    lacking(reductions),
                )
            case BandEnergy():
                window = self.definition.window
                bins = feature.bins(rate_hz=window.rate_hz, samples=window.samples)
                return lambda reductions: (
                    reductions.band_energy(channel, bins)[:, None] * lsb**2,
                    lacking(reductions),
                )
            case Correlation():
                return self._correlation(channel, self._position[feature.other])
            case Raw():
                return lambda reductions: (
                    reductions.series[:, channel].astype(np.float64) * lsb,
                    None if reductions.valid is None else ~reductions.valid[:, channel],
                )
            case _:
                return None

    def _correlation(self, one: int, other: int) -> Compute:
        least = int(max(self._least[one], self._least[other]))

        def compute(reductions: Reductions) -> tuple[Float64, Bool | None]:
            values, count = reductions.correlation(one, other)
            lacking = None if reductions.valid is None else (count < least)[:, None]
            return values[:, None], lacking

        return compute


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


def quantise(definition: WindowDefinition, samples: npt.ArrayLike) -> Int32:
    """:meth:`Evaluator.quantise` for callers that need it once."""
    return Evaluator(definition).quantise(samples)


def evaluate(definition: WindowDefinition, quantised: Int32) -> Float32:
    """:meth:`Evaluator.evaluate` for callers that need it once."""
    return Evaluator(definition).evaluate(quantised)
