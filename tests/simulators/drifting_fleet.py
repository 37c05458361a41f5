"""A fleet whose devices differ, come and go, live by day and by week, and share some weather.

Each channel is standard normal in training. In production a device adds an effect of its own, the
hour of the day and the day of the week move everyone, weather (an autoregression by the hour) moves
everyone as well, and one in ten devices is away in any hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from fleet_server.domain.drifting.expectation import Seen
from fleet_server.domain.drifting.measures import WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BINS = 10


@dataclass(frozen=True)
class Conditions:
    """Standard deviations are in those of the training data."""

    features: int = 32
    slices: int = 4
    devices: int = 200
    rows: int = 60
    """Of one device in one hour."""
    device_effect: float = 0.5
    away: float = 0.1
    day: float = 0.3
    weekend: float = 0.15
    weather: float = 0.02
    weather_memory: float = 0.8


class Fleet:
    """One draw of a fleet; hours have to be asked for in order."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.conditions = conditions
        self.rng = np.random.default_rng(seed)
        shape = (conditions.devices, conditions.features)
        self._own = self.rng.normal(0, conditions.device_effect, shape)
        self._slice = np.arange(conditions.devices) % conditions.slices
        self._phase = self.rng.uniform(0, 2 * np.pi, conditions.features)
        self._weather = np.zeros(conditions.features)
        self._edges = ndtri(np.linspace(0, 1, BINS + 1)[1:-1])
        self._edges = np.concatenate([[-3.5], self._edges, [3.5]])
        self._within = np.sqrt(1 - conditions.device_effect**2)

    @property
    def channels(self) -> list[WatchedChannel]:
        """As a release's reference tells them."""
        usual = (0, *[1000] * BINS, 0, 0)
        names = [f"f{number}" for number in range(self.conditions.features)]
        return [WatchedChannel(name=name, kind="feature", usual=usual) for name in names]

    def hour(
        self,
        number: int,
        *,
        shift: float = 0.0,
        hit: Sequence[int] = (),
        slices: Sequence[int] = (),
    ) -> dict[str, dict[str, Seen]]:
        """What was seen in one hour; the features that are hit are shifted, in some slices."""
        told = self.conditions
        noise = np.sqrt(1 - told.weather_memory**2) * told.weather
        step = self.rng.normal(0, 1, told.features) * noise
        self._weather = told.weather_memory * self._weather + step
        means = self._own + self._weather + self._usual(number)
        moved = np.isin(self._slice, list(slices) or list(range(told.slices)))
        means[np.ix_(moved, list(hit))] += shift
        there = self.rng.random(told.devices) >= told.away
        below = ndtr((self._edges - means[..., None]) / self._within)
        shares = np.diff(below, axis=-1, prepend=0.0, append=1.0)
        found = {EVERYONE: np.zeros((told.features, BINS + 3), np.int64)}
        rows = {EVERYONE: 0}
        for number_ in range(told.slices):
            mine = there & (self._slice == number_)
            count = int(mine.sum()) * told.rows
            drawn = self.rng.multinomial(count, shares[mine].mean(axis=0)) if count else 0
            counts = np.zeros((told.features, BINS + 3), np.int64)
            counts[:, : BINS + 2] = drawn
            found[f"site={number_}"], rows[f"site={number_}"] = counts, count
            found[EVERYONE] += counts
            rows[EVERYONE] += count
        return {n: {"incumbent": Seen(rows[n], counts.ravel())} for n, counts in found.items()}

    def _usual(self, hour: int) -> Float64:
        day = np.sin(2 * np.pi * (hour % 24) / 24 + self._phase)
        weekend = (hour // 24 + 4) % 7 >= 5
        found: Float64 = self.conditions.day * day + self.conditions.weekend * weekend
        return found
