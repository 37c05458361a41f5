"""What a detector remembers of one release, and how it is stored."""

import io
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec
import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting.betting import BETTORS
from fleet_server.domain.drifting.measures import MEASURES
from fleet_server.domain.drifting.season import Season

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

DRIFT_VERSION: Final = 2
EVERYONE: Final = ""
"""The slice of all rows."""


class Memory(msgspec.Struct, kw_only=True):
    """The part that is no array."""

    v: int = DRIFT_VERSION
    slices: list[str] = msgspec.field(default_factory=lambda: [EVERYONE])
    judged: int = -1
    """Last period that had enough rows to say something."""
    since: int | None = None
    """First period of the drift that is going on."""
    opened: int = -1
    """Period in which it was told."""
    drifted: list[tuple[int, int, int]] = []
    """Slice, channel and measure of each figure that the open drift is about."""
    limits: list[float] = []
    """Within how many standard deviations each is usual again."""
    quiet: int = 0
    """Periods in a row that looked usual while a drift was open."""
    hour: int = -1


@dataclass
class DriftState:
    """One release's detector. Arrays are [slices, channels, measures] where nothing is said."""

    channels: int
    memory: Memory = field(default_factory=Memory)
    season_changed: bool = False
    """Whether the season's profiles have to be stored again."""

    def __post_init__(self) -> None:
        shape = (len(self.memory.slices), self.channels, len(MEASURES))
        self.learned: Int64 = np.zeros(shape[0], np.int64)
        """Periods learned from, by slice."""
        self.rows: Float64 = np.zeros(shape[:2])
        """Values in a usual period: [slices, channels]."""
        self.level: Float64 = np.zeros(shape)
        self.variance: Float64 = np.zeros(shape)
        """Mean squared error of what was expected, for as many rows as usual."""
        self.covariance: Float64 = np.zeros(shape)
        """Mean product of an error and the one before."""
        self.fourth: Float64 = np.zeros(shape)
        """Mean fourth power of an error."""
        self.error: Float64 = np.zeros(shape)
        """The last one."""
        self.trials: Int64 = np.zeros(shape, np.int64)
        """Errors that it was learned from."""
        self.capital: Float64 = np.zeros((*shape, BETTORS))
        """Log capital of each bettor, never below 0."""
        self.risen: Int64 = np.full((*shape, BETTORS), -1, np.int64)
        """Period in which the capital last left 1."""
        self.season = Season(*shape)

    def grow(self, names: list[str]) -> None:
        """Watch these slices as well from now on."""
        added = len(names)
        for name in _ARRAYS:
            setattr(self, name, _padded(getattr(self, name), 0, added))
        self.risen[-added:] = -1
        season = self.season
        for name, axis in _SEASON.items():
            setattr(season, name, _padded(getattr(season, name), axis, added))
        self.memory.slices = [*self.memory.slices, *names]
        self.season_changed = True

    def rest(self) -> None:
        """No capital, no drift."""
        self.capital[:] = 0
        self.risen[:] = -1
        self.memory.since, self.memory.drifted, self.memory.quiet = None, [], 0
        self.memory.limits = []

    def pack(self) -> bytes:
        """Everything but the season's profiles."""
        season = {f"season_{name}": getattr(self.season, name) for name in ("sum", "seen")}
        self.memory.hour = self.season.hour
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return _packed(msgspec.json.encode(self.memory), {**arrays, **season})

    def pack_season(self) -> bytes:
        """The season's profiles."""
        names = ("day", "week", "day_visits", "week_visits")
        return _packed(b"", {name: getattr(self.season, name) for name in names})

    @classmethod
    def unpack(cls, state: bytes, season: bytes, channels: int) -> Self | None:
        """What :meth:`pack` and :meth:`pack_season` made; none where an older server did."""
        if not state.startswith(_MAGIC):
            return None
        stored, arrays = _unpacked(state)
        found = cls(channels, msgspec.json.decode(stored, type=Memory))
        for name in _ARRAYS:
            setattr(found, name, arrays[name])
        for name in ("sum", "seen"):
            setattr(found.season, name, arrays[f"season_{name}"])
        found.season.hour = found.memory.hour
        if season:
            for name, array in _unpacked(season)[1].items():
                if array.shape[_SEASON[name]] == len(found.memory.slices):
                    setattr(found.season, name, array)
        return found


_ARRAYS = (
    "learned",
    "rows",
    "level",
    "variance",
    "covariance",
    "fourth",
    "error",
    "trials",
    "capital",
    "risen",
)
_SEASON = {"sum": 0, "seen": 0, "day": 1, "week": 1, "day_visits": 1, "week_visits": 1}
"""Arrays of the season, and their axis of slices."""
_MAGIC = b"SD2\0"


def _padded(array: npt.NDArray[np.generic], axis: int, added: int) -> npt.NDArray[np.generic]:
    shape = list(array.shape)
    shape[axis] = added
    return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)


def _packed(head: bytes, arrays: dict[str, npt.NDArray[np.generic]]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, head=np.frombuffer(head, np.uint8), **arrays)
    return _MAGIC + stream.getvalue()


def _unpacked(data: bytes) -> tuple[bytes, dict[str, npt.NDArray[np.generic]]]:
    with np.load(io.BytesIO(data[len(_MAGIC) :]), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays.pop("head").tobytes(), arrays
