"""Moments in the local time of a zone that the definition carries: parts, phases, holidays."""

import datetime
from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import elementary
from edge_core.features.carried import Calendar, Zone

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
NEVER = 2**40
"""More days than any two dates lie apart."""
MONDAY = 3 * DAY
"""1970 began on a Thursday, three days after a Monday."""


class Clock:
    """UTC to the local time of one zone."""

    def __init__(self, zone: Zone | None) -> None:
        """Without a zone, local time is UTC."""
        self._zone = zone
        self.known_us = 0 if zone is None else zone.from_s * SECOND
        """Some moment that the table holds."""
        if zone is not None:
            self._moments = np.array([moment for moment, _ in zone.transitions], np.int64)
            offsets = [zone.first_offset_s, *(offset for _, offset in zone.transitions)]
            self._offsets = np.array(offsets, np.int64)
            self._listed = self._moments.tolist(), offsets

    def local(self, utc_us: Int64) -> Int64:
        """Microseconds since 1970 as the zone's clocks show them, int64 [n].

        Raises:
            InvalidInput: a moment beyond the zone's table.
        """
        zone = self._zone
        if zone is None or not len(utc_us):
            return utc_us
        seconds = utc_us // SECOND
        if int(seconds.max()) >= zone.until_s or int(seconds.min()) < zone.from_s:
            raise _beyond(zone)
        local: Int64 = utc_us + self._offsets[np.searchsorted(self._moments, seconds, "right")] * (
            SECOND
        )
        return local

    def local_of(self, utc_us: int) -> int:
        """As :meth:`local`, of one moment."""
        zone = self._zone
        if zone is None:
            return utc_us
        seconds = utc_us // SECOND
        if not zone.from_s <= seconds < zone.until_s:
            raise _beyond(zone)
        moments, offsets = self._listed
        return utc_us + offsets[bisect_right(moments, seconds)] * SECOND


def _beyond(zone: Zone) -> InvalidInput:
    return InvalidInput(
        f"a moment lies beyond the definition's table of {zone.name}, which is known from "
        f"{zone.from_s} to {zone.until_s} s; set the clock right, or build the release again with "
        "more years and a newer time zone database"
    )


def part(local_us: Int64, name: str) -> Int64:
    """Hour, weekday from Monday, month from January, or minute of the day; from 0."""
    match name:
        case "hour":
            return local_us // HOUR % 24
        case "minute_of_day":
            return local_us // MINUTE % 1440
        case "weekday":
            return (local_us + MONDAY) // DAY % 7
        case "month":
            return _since_1970(local_us, "M") % 12
        case _:
            raise ValueError(f"unknown part of a moment: {name}")


def cyclic(local_us: Int64, period: str) -> tuple[Float64, Float64]:
    """Sine and cosine of the phase in the day, the week from Monday, or the year."""
    match period:
        case "day":
            return elementary.circle(local_us % DAY, DAY)
        case "week":
            return elementary.circle((local_us + MONDAY) % WEEK, WEEK)
        case "year":
            year = _since_1970(local_us, "Y")
            start, end = _start_of(year), _start_of(year + 1)
            return elementary.circle(local_us - start, end - start)
        case _:
            raise ValueError(f"unknown period: {period}")


class Dates:
    """A calendar, ready for look-ups."""

    def __init__(self, calendar: Calendar) -> None:
        epoch = datetime.date(1970, 1, 1)
        self._listed = [(date - epoch).days for date in calendar.dates]
        self._days = np.array(self._listed, np.int64)

    def holds(self, local_us: Int64) -> Float64:
        """1 where the date is in the calendar, else 0."""
        return np.isin(local_us // DAY, self._days).astype(np.float64)

    def days_to(self, local_us: Int64, limit: int) -> Float64:
        """Days to the nearest date, negative after it, at most ``limit`` either way."""
        day = local_us // DAY
        place = np.searchsorted(self._days, day)
        last = len(self._days) - 1
        coming = np.where(place > last, NEVER, self._days[np.minimum(place, last)] - day)
        gone = np.where(place == 0, NEVER, day - self._days[np.maximum(place - 1, 0)])
        nearest = np.where(coming <= gone, coming, -gone)
        return np.clip(nearest, -limit, limit).astype(np.float64)

    def holds_one(self, local_us: int) -> float:
        """As :meth:`holds`, of one moment."""
        day = local_us // DAY
        place = bisect_left(self._listed, day)
        return float(place < len(self._listed) and self._listed[place] == day)

    def days_to_one(self, local_us: int, limit: int) -> float:
        """As :meth:`days_to`, of one moment."""
        day = local_us // DAY
        place = bisect_left(self._listed, day)
        coming = self._listed[place] - day if place < len(self._listed) else NEVER
        gone = day - self._listed[place - 1] if place else NEVER
        return float(min(coming, limit) if coming <= gone else max(-gone, -limit))


def _since_1970(local_us: Int64, unit: str) -> Int64:
    return local_us.astype("datetime64[us]").astype(f"datetime64[{unit}]").astype(np.int64)


def _start_of(year: Int64) -> Int64:
    return year.astype("datetime64[Y]").astype("datetime64[us]").astype(np.int64)
