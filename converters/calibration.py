"""Calibration: int8 ranges of tensors from what they held on sample rows.

Ranges are found the same way for every format: the float file runs on the rows with all tensors
in sight, and each tensor's values go into one histogram from which every method reads its range.

Percentile: cuts ``1 - PERCENTILE`` of the values, half on each side. Entropy: the threshold with
the least Kullback-Leibler divergence between the values and their quantised form (S. Migacz,
"8-bit inference with TensorRT", GTC 2017, with the first bin evened out as NVIDIA's
pytorch-quantization does: zeros are exact in int8 and say nothing about the range).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from converters import tensors
from converters.tensors import Array, Feeds, TensorSpec, rows_of, take

LEAST_ROWS = 32
"""With fewer rows the tails of most tensors were never seen."""
HELD_OUT = 4
"""Every fourth row is held out where methods compete."""
BINS = 4096
"""Of a histogram from -largest to largest magnitude."""
PERCENTILE = 0.9999
CANDIDATES = 64
"""Thresholds that entropy tries."""

Single = Literal["min/max", "percentile", "entropy"]
METHODS: tuple[Single, ...] = ("min/max", "percentile", "entropy")
Range = tuple[float, float]
Watch = Callable[[Feeds], Iterable[Mapping[str, Array]]]
"""Runs rows in batches; each batch gives the float tensors' values by tensor name."""
Counts = npt.NDArray[np.float64]


class Spread(msgspec.Struct, kw_only=True):
    """What one tensor held: extremes, and counts in ``BINS`` bins from -largest to largest."""

    lowest: float = 0.0
    highest: float = 0.0
    counts: Counts

    @property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(-self.lowest, self.highest)


def check_rows(rows: Feeds, specs: Iterable[TensorSpec]) -> None:
    """Refuse calibration rows that cannot serve.

    Raises:
        InvalidInput: wrong names, shapes or dtypes, NaN or infinity, or too few rows.
    """
    tensors.check(rows, specs, least_rows=LEAST_ROWS, what="the calibration set")


def split(rows: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
    """Rows to learn ranges from, and held-out rows to compare methods on. Always the same."""
    places = np.arange(rows_of(rows))
    held = places % HELD_OUT == HELD_OUT - 1
    return take(rows, places[~held]), take(rows, places[held])


def spreads(watch: Watch, rows: Feeds, *, counted: bool) -> dict[str, Spread]:
    """Run the rows and gather what each tensor held.

    Args:
        watch: runs rows and shows tensors.
        rows: calibration rows.
        counted: whether histograms are needed; that runs the rows a second time.
    """
    found: dict[str, Spread] = {}
    for batch in watch(rows):
        for name, values in batch.items():
            if values.size:
                spread = found.setdefault(name, Spread(counts=np.zeros(BINS)))
                spread.lowest = min(spread.lowest, float(values.min()))
                spread.highest = max(spread.highest, float(values.max()))
    for batch in watch(rows) if counted else ():
        for name, values in batch.items():
            if values.size and found[name].largest:
                largest = found[name].largest
                found[name].counts += np.histogram(values, BINS, (-largest, largest))[0]
    return found


def ranges(found: Mapping[str, Spread], method: Single) -> dict[str, Range]:
    """The range of each tensor; it always holds zero, as int8 arithmetic needs."""
    choose = {"min/max": _extremes, "percentile": _percentile, "entropy": _entropy}[method]
    return {name: choose(spread) for name, spread in found.items()}


def _extremes(spread: Spread) -> Range:
    return spread.lowest, spread.highest


def _percentile(spread: Spread) -> Range:
    total = spread.counts.sum()
    if not total:
        return _extremes(spread)
    edges = np.linspace(-spread.largest, spread.largest, BINS + 1)
    shares = np.concatenate(([0.0], np.cumsum(spread.counts) / total))
    cut = (1 - PERCENTILE) / 2
    # Of equal shares, the innermost edges: empty bins say nothing.
    low = edges[np.searchsorted(shares, cut, side="right") - 1]
    high = edges[np.searchsorted(shares, 1 - cut, side="left")]
    return min(max(spread.lowest, float(low)), 0.0), max(min(spread.highest, float(high)), 0.0)


def _entropy(spread: Spread) -> Range:
    half = BINS // 2
    counts = spread.counts[half:] + spread.counts[:half][::-1]
    if not counts.sum():
        return _extremes(spread)
    one_sided = spread.lowest == 0 or spread.highest == 0
    levels = 256 if one_sided else 128
    counts[0] = counts[1]
    ends = np.unique(np.linspace(levels, half, CANDIDATES).astype(int))
    losses = [divergence(counts, int(end), levels) for end in ends]
    threshold = spread.largest * float(ends[int(np.argmin(losses))]) / half
    return max(spread.lowest, -threshold), min(spread.highest, threshold)


def divergence(counts: Counts, end: int, levels: int) -> float:
    """Kullback-Leibler divergence of counts from what ``levels`` steps below ``end`` make of them.

    Args:
        counts: of magnitudes, by bin.
        end: the bin where values are cut; what lies beyond counts in the last bin kept.
        levels: quantisation steps below ``end``.
    """
    kept = counts[:end]
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    step = np.arange(end) * levels // end
    filled = kept > 0
    totals = np.bincount(step, kept, levels)
    members = np.bincount(step, filled, levels)
    means = np.divide(totals, members, out=np.zeros(levels), where=members > 0)
    spread = np.where(filled, means[step], 0.0)
    if not spread.sum():
        return float("inf")
    true, made = clipped / clipped.sum(), spread / spread.sum()
    there = true > 0
    return float((true[there] * np.log(true[there] / np.maximum(made[there], 1e-9))).sum())
