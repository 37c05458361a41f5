"""Finds stretches of samples that training and test share, wherever in a window they lie.

Recordings have no common clock and an entity may have several names, so neither tells whether two
of them are cuts of one recording. Their samples do: two sensors do not say the same for long.
"""

import numpy as np
import numpy.typing as npt

from converters.data.dataset import Float32, Snapshot
from converters.leakage import Sign

SHARE = 4
"""A run is this part of a window..."""
LEAST_VALUES = 64
"""...and at least so many values: what is shorter may be equal by chance."""

UInt64 = npt.NDArray[np.uint64]
_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that it has an inverse modulo 2**64. Source: Knuth, TAOCP 3, section 6.4."""


def signs(snapshot: Snapshot) -> list[Sign]:
    """The share of test windows that hold a run of samples from training or calibration."""
    test = snapshot.rows["test"].samples
    seen = [snapshot.rows["train"].samples, snapshot.rows["calibration"].samples]
    length = run_length(*test.shape[1:])
    found = sharing(np.concatenate(seen), test, length)
    detail = f"test windows with {length} samples in a row that were trained or calibrated on"
    return [Sign("row_overlap", float(found.sum()), detail)]


def run_length(samples: int, inputs: int) -> int:
    """Samples of a run that two recordings do not share by chance, at most a whole window."""
    return min(samples, max(-(-samples // SHARE), -(-LEAST_VALUES // inputs)))


def sharing(known: Float32, windows: Float32, length: int) -> npt.NDArray[np.bool_]:
    """Which windows hold a run of samples that any known window holds, at any place.

    Runs of equal samples do not count: a sensor at rest says the same everywhere.

    Args:
        known: float32 [rows, samples, inputs].
        windows: float32 [other rows, samples, inputs].
        length: of a run.

    Returns:
        bool [other rows].
    """
    table = np.unique(_runs(known, length))
    runs = _runs(windows, length)
    if not len(table):
        return np.zeros(len(windows), np.bool_)
    places = np.minimum(np.searchsorted(table, runs), len(table) - 1)
    found: npt.NDArray[np.bool_] = ((table[places] == runs) & (runs != 0)).any(axis=1)
    return found


def _runs(windows: Float32, length: int) -> UInt64:
    """A rolling hash of each run, uint64 [rows, samples - length + 1]; 0 where it is constant.

    Polynomial modulo 2**64 (Karp and Rabin 1987); equal runs have equal hashes. With prefix sums
    of ``sample * factor**place`` a run's sum is brought to place 0 by the factor's inverse.
    """
    marks = _marks(windows)
    count = marks.shape[1]
    powers = _powers(_FACTOR, count)
    inverse = _powers(pow(_FACTOR, -1, 2**64), count)
    sums = np.zeros((len(marks), count + 1), np.uint64)
    np.cumsum(marks * powers, axis=1, out=sums[:, 1:])
    runs = (sums[:, length:] - sums[:, :-length]) * inverse[: count - length + 1]
    changes = np.zeros((len(marks), count), np.int64)
    np.cumsum(marks[:, 1:] != marks[:, :-1], axis=1, out=changes[:, 1:])
    moving = changes[:, length - 1 :] != changes[:, : count - length + 1]
    return np.where(moving, runs, np.uint64(0))


def _marks(windows: Float32) -> UInt64:
    """One number for each sample's bits, uint64 [rows, samples]."""
    bits = np.ascontiguousarray(windows, np.float32).view(np.uint32).astype(np.uint64)
    draw = np.random.default_rng(0)
    factors = draw.integers(1, 2**63, windows.shape[2], np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = (bits * factors).sum(axis=2, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(31)
    marks: UInt64 = mixed * np.uint64(_FACTOR)
    return marks


def _powers(base: int, count: int) -> UInt64:
    found, power = [], 1
    for _ in range(count):
        found.append(power)
        power = power * base % 2**64
    return np.array(found, np.uint64)
