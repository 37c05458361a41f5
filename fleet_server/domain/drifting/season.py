"""What to expect of each figure in each hour: its usual value, by hour of the day and of the week.

An hour that was never seen is expected as the rest, with doubt: the farther from what was seen, the
more. So a release is watched from its first hours, and better every week.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting.measures import SHARES

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

DAY: Final = 24
WEEK: Final = 168
DAYS_KEPT = 14
WEEKS_KEPT = 8
"""Older ones fade at this pace."""
DAY_DOUBT = 0.35
WEEK_DOUBT = 0.15
"""Standard deviations of what hours may differ by, before any of them was seen."""
DOUBT_HOURS = 6
"""An hour so far from any that was seen says nothing about it."""
SAME_HOUR = 8
"""So many periods of an hour that goes on say what it is like."""
UNITS = np.where(SHARES, 0.5, 1.0)


class Season:
    """Profiles of the figures of some slices; arrays are [hours, slices, channels, measures]."""

    def __init__(self, slices: int, channels: int, measures: int) -> None:
        shape = (slices, channels, measures)
        self.day: Float64 = np.zeros((DAY, *shape), np.float32)
        self.week: Float64 = np.zeros((WEEK, *shape), np.float32)
        self.day_visits: Int64 = np.zeros((DAY, slices), np.int64)
        self.week_visits: Int64 = np.zeros((WEEK, slices), np.int64)
        self.hour = -1
        """The hour that goes on, counted since 1970."""
        self.sum: Float64 = np.zeros(shape)
        self.seen: Int64 = np.zeros(slices, np.int64)
        """Periods of that hour."""

    def turn(self, hour: int) -> bool:
        """Begin an hour; whether another ended with it."""
        if hour == self.hour:
            return False
        ended = self.hour >= 0 and bool(self.seen.any())
        if ended:
            self._note()
        self.hour = hour
        self.sum[:] = 0
        self.seen[:] = 0
        return ended

    def _note(self) -> None:
        there = self.seen > 0
        mean = self.sum[there] / self.seen[there][:, None, None]
        for profile, visits, at, most in (
            (self.day, self.day_visits, self.hour % DAY, DAYS_KEPT),
            (self.week, self.week_visits, self.hour % WEEK, WEEKS_KEPT),
        ):
            step = 1 / np.minimum(visits[at, there] + 1, most)
            profile[at, there] += step[:, None, None] * (mean - profile[at, there])
            visits[at, there] += 1

    def expected(self, hour: int, level: Float64, variance: Float64) -> Float64:
        """What an hour usually shows.

        Args:
            hour: counted since 1970.
            level: mean of all hours, [slices, channels, measures].
            variance: of one period, as ``level``: how little one visit says.

        Returns:
            float64 as ``level``: the mean of this hour of the week, shrunk towards that of the
            hour of the day, and that towards the level, as normal priors of the doubts' sizes
            demand.
        """
        found = level.copy()
        for profile, visits, at, doubt in (
            (self.day, self.day_visits, hour % DAY, DAY_DOUBT),
            (self.week, self.week_visits, hour % WEEK, WEEK_DOUBT),
        ):
            times = visits[at][:, None, None]
            weight = times / (times + variance / (doubt * UNITS) ** 2)
            found += weight * (profile[at] - found)
        return found

    def doubt(self) -> Float64:
        """Standard deviation of what is not known of this hour yet: [slices, 1, measures]."""
        known = self.seen >= SAME_HOUR
        day = np.where(known, 0.0, DAY_DOUBT * self._distance() / DOUBT_HOURS)
        unseen = ~known & (self.week_visits[self.hour % WEEK] == 0)
        week = np.where(unseen & (self.day_visits.sum(axis=0) > 0), WEEK_DOUBT, 0.0)
        return np.asarray(np.hypot(day, week)[:, None, None] * UNITS, np.float64)

    def _distance(self) -> Float64:
        """Hours of the day to the nearest one that was seen, at most :data:`DOUBT_HOURS`."""
        away = np.abs(np.arange(DAY) - self.hour % DAY)
        away = np.minimum(away, DAY - away)[:, None]
        nearest = np.where(self.day_visits > 0, away, DOUBT_HOURS).min(axis=0)
        none = ~(self.day_visits > 0).any(axis=0)
        return np.asarray(np.where(none, 0, np.minimum(nearest, DOUBT_HOURS)), np.float64)

    def add(self, values: Float64, learned: npt.NDArray[np.bool_]) -> None:
        """Learn one period of some slices."""
        self.sum[learned] += values[learned]
        self.seen[learned] += 1

    @property
    def weeks(self) -> int:
        """Full weeks that every hour of the first slice was seen, roughly."""
        return int(np.median(self.week_visits[:, 0])) if self.week_visits.size else 0
