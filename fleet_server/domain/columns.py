"""The cells of the evidence as arrays, so that 100,000 devices are judged in part of a second.

One order for the same evidence and whole numbers in every count: windows that were merged in any
order or grouping give the same arrays, and so the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from edge_core.messages.telemetry import Arm
from fleet_server.domain.evidence import Baseline, Cell, Evidence, Member
from fleet_server.domain.packed_cells import PackedCells

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ARMS: tuple[str, ...] = get_args(Arm)
COUNTS = (
    "rows",
    "errors",
    "right",
    "wrong",
    "both_right",
    "only_active_right",
    "only_shadow_right",
    "both_wrong",
    "scored",
    "unusual",
)
NO_CELLS = PackedCells.of([], [], [], {}, np.zeros((0, 0), np.int64))
_ROW = {name: place for place, name in enumerate(COUNTS)}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """Cells, one a place: n of them, of ``devices`` devices.

    Some of the cells share the arrays of all N that they were taken from. A count that is negative
    or no number at all is taken for 0.
    """

    devices: int
    device: Int64
    """[n], rising: which device."""
    arm: Int64
    """[n]: place in :data:`ARMS`."""
    slice: Int64
    """[n]: place in ``slices``."""
    slices: list[str]
    at: Int64
    """[n], rising: places in the arrays of all cells."""
    counts: Float64
    """[10, N]: whole numbers, a row for each of :data:`COUNTS`."""
    all_latency: Float64
    """[N, bins]."""
    before: Float64
    """[2, N]: right and wrong rows of the incumbent on the device and slice before the stage."""
    before_rate: float
    """Share of right rows of the whole fleet before the stage."""
    candidates: Bools
    """[devices]: whose order is to serve the candidate."""
    controls: Bools
    """[devices]: the concurrent control."""

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Arrange, and add up cells of the same device, arm and slice."""
        members, packed = evidence.members, evidence.packed or NO_CELLS
        raw = _joined(_listed(evidence.cells), _unpacked(packed))
        names = sorted({*raw.devices, *(member.device for member in members)})
        slices = sorted(set(raw.slices))
        place = {name: number for number, name in enumerate(names)}
        found = cls(
            devices=len(names),
            device=_renumbered(raw.devices, place)[raw.device],
            arm=raw.arm,
            slice=_renumbered(raw.slices, {s: n for n, s in enumerate(slices)})[raw.slice],
            slices=slices,
            at=np.arange(len(raw.arm)),
            counts=raw.counts,
            all_latency=raw.latency,
            before=np.zeros((2, len(raw.arm))),
            before_rate=_rate(evidence.baselines),
            candidates=_of_role(members, place, "candidate"),
            controls=_of_role(members, place, "control"),
        )
        return found.sound()._merged()._with_before(evidence.baselines, place)

    def __getitem__(self, name: str) -> Float64:
        """One of :data:`COUNTS`, float64 [n]."""
        found: Float64 = self.counts[_ROW[name]][self.at]
        return found

    @property
    def latency(self) -> Float64:
        """Rows by bin, float64 [n, bins]."""
        return self.all_latency[self.at]

    @property
    def known(self) -> Float64:
        """Right and wrong rows of the incumbent before the stage, float64 [2, n]."""
        return self.before[:, self.at]

    @property
    def labelled(self) -> Float64:
        """Rows with a label, float64 [n]."""
        return self["right"] + self["wrong"]

    @property
    def pairs(self) -> Float64:
        """Labelled rows that both releases answered, float64 [n]."""
        alike = self["both_right"] + self["both_wrong"]
        return alike + self["only_active_right"] + self["only_shadow_right"]

    def sound(self) -> Self:
        """With 0 for what is no count."""
        return replace(
            self,
            counts=_true(self.counts),
            all_latency=_true(self.all_latency),
            before=_true(self.before),
        )

    def take(self, chosen: Bools) -> Self:
        """Some of the cells; devices keep their places."""
        return replace(
            self,
            device=self.device[chosen],
            arm=self.arm[chosen],
            slice=self.slice[chosen],
            at=self.at[chosen],
        )

    def is_arm(self, arm: str) -> Bools:
        """Which cells are of an arm, [n]."""
        found: Bools = self.arm == ARMS.index(arm)
        return found

    def of_arm(self, arm: str) -> Self:
        """Cells of one arm."""
        return self.take(self.is_arm(arm))

    def within(self, name: str) -> Self:
        """Cells of a declared slice value, ``name=value``."""
        inside = np.array([name in key.split(",") for key in self.slices], bool)
        return self.take(inside[self.slice])

    def by_device(self, values: Float64) -> Float64:
        """Sum values of cells, [n], by device, [devices]."""
        return np.bincount(self.device, values, self.devices).astype(np.float64, copy=False)

    def _merged(self) -> Self:
        order = np.lexsort((self.arm, self.slice, self.device))
        keys = np.stack([self.device, self.slice, self.arm])[:, order]
        if not keys.size:
            return self
        first = np.flatnonzero(np.r_[True, np.any(keys[:, 1:] != keys[:, :-1], axis=0)])
        return replace(
            self,
            device=keys[0, first],
            slice=keys[1, first],
            arm=keys[2, first],
            at=np.arange(len(first)),
            counts=np.add.reduceat(self.counts[:, order], first, axis=1),
            all_latency=np.add.reduceat(self.all_latency[order], first, axis=0),
            before=self.before[:, first],
        )

    def _with_before(self, baselines: Sequence[Baseline], place: dict[str, int]) -> Self:
        """Look up each cell's baseline; of two for the same device and slice the last counts."""
        slices = {name: number for number, name in enumerate(self.slices)}
        keys = {
            place[entry.device] * len(slices) + slices[entry.slice]: number
            for number, entry in enumerate(baselines)
            if entry.device in place and entry.slice in slices
        }
        if not keys:
            return self
        known = np.array(sorted(keys))
        own = self.device * len(slices) + self.slice
        near = np.minimum(np.searchsorted(known, own), len(known) - 1)
        rows = [(baselines[keys[key]].right, baselines[keys[key]].wrong) for key in known.tolist()]
        values = _true(np.array(rows, np.float64).T)
        return replace(self, before=np.where(known[near] == own, values[:, near], 0.0))


class _Raw(NamedTuple):
    """Cells in whatever order they came; names may stand twice."""

    devices: list[str]
    slices: list[str]
    device: Int64
    slice: Int64
    arm: Int64
    counts: Float64
    latency: Float64


def _listed(cells: Sequence[Cell]) -> _Raw:
    devices = sorted({cell.device for cell in cells})
    slices = sorted({cell.slice for cell in cells})
    values = chain.from_iterable(map(attrgetter(*COUNTS), cells))
    counts = np.fromiter(values, np.float64, len(cells) * len(COUNTS))
    return _Raw(
        devices,
        slices,
        _places(cells, "device", devices),
        _places(cells, "slice", slices),
        _places(cells, "arm", ARMS),
        counts.reshape(len(cells), len(COUNTS)).T,
        _latency(cells),
    )


def _unpacked(cells: PackedCells) -> _Raw:
    arm = cells.unpack(cells.arm, None)
    size = len(arm)
    bins = [cells.unpack(column, size) for column in cells.latency]
    counts = [cells.unpack(cells.counts[name], size) for name in COUNTS if name in cells.counts]
    filled = np.zeros((len(COUNTS), size))
    filled[[place for place, name in enumerate(COUNTS) if name in cells.counts]] = counts or 0
    return _Raw(
        cells.devices,
        cells.slices,
        cells.unpack(cells.device, size),
        cells.unpack(cells.slice, size),
        _renumbered(cells.arms, {name: place for place, name in enumerate(ARMS)})[arm],
        filled,
        np.array(bins, np.float64).reshape(len(bins), size).T,
    )


def _joined(first: _Raw, second: _Raw) -> _Raw:
    if not len(second.arm) or not len(first.arm):
        return second if len(second.arm) else first
    bins = max(first.latency.shape[1], second.latency.shape[1])
    latency = [np.pad(p.latency, ((0, 0), (0, bins - p.latency.shape[1]))) for p in (first, second)]
    return _Raw(
        first.devices + second.devices,
        first.slices + second.slices,
        np.concatenate([first.device, second.device + len(first.devices)]),
        np.concatenate([first.slice, second.slice + len(first.slices)]),
        np.concatenate([first.arm, second.arm]),
        np.concatenate([first.counts, second.counts], axis=1),
        np.concatenate(latency),
    )


def _renumbered(names: Sequence[str], place: dict[str, int]) -> Int64:
    return np.array([place[name] for name in names], np.int64)


def _latency(cells: Sequence[Cell]) -> Float64:
    sizes = np.fromiter((len(cell.latency) for cell in cells), np.int64, len(cells))
    bins = int(sizes.max(initial=0))
    found = np.zeros((len(cells), bins))
    values = chain.from_iterable(cell.latency for cell in cells)
    found[np.arange(bins) < sizes[:, None]] = np.fromiter(values, np.float64, int(sizes.sum()))
    return found


def _places(cells: Sequence[Cell], name: str, names: Sequence[str]) -> Int64:
    place = {known: number for number, known in enumerate(names)}
    found = map(place.__getitem__, map(attrgetter(name), cells))
    return np.fromiter(found, np.int64, len(cells))


def _of_role(members: Sequence[Member], place: dict[str, int], role: str) -> Bools:
    found = np.zeros(len(place), bool)
    found[[place[member.device] for member in members if member.role == role]] = True
    return found


def _true(counts: Float64) -> Float64:
    """Counts as they can be."""
    return np.where(np.isfinite(counts) & (counts > 0), counts, 0.0)


def _rate(baselines: Sequence[Baseline]) -> float:
    right = float(_true(np.array([entry.right for entry in baselines], np.float64)).sum())
    wrong = float(_true(np.array([entry.wrong for entry in baselines], np.float64)).sum())
    return right / (right + wrong) if right + wrong else 0.5
