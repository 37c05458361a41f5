"""When a device may be given a new release: its maintenance window, its site's budget. Pure.

Going back to an earlier release is never held up.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fleet_server.domain.plan import WEEKDAYS, Disruption, MaintenanceWindow, Plan

CLOSED = "outside of its maintenance window"
BUDGET = "as many devices as may are changing at {place}"


class Waiting(NamedTuple):
    """A device that should change, or is changing."""

    device: str
    site: str
    slices: Mapping[str, str]
    changing: bool
    """It was given its order and has not settled yet."""


def held_back(
    plan: Plan, waiting: Sequence[Waiting], places: Mapping[str, int], now: datetime
) -> dict[str, str]:
    """Device -> why it is not given its new release now; those that may change are left out.

    Args:
        plan: windows and budget.
        waiting: devices that should change, in the order in which they are served, and those that
            are changing.
        places: number of devices at each place of the budget.
        now: UTC.
    """
    found: dict[str, str] = {}
    changing = Counter(
        _place(plan.disruption, one) for one in waiting if one.changing and plan.disruption
    )
    for one in waiting:
        if one.changing:
            continue
        if not is_open(plan.maintenance, one.site, now):
            found[one.device] = CLOSED
            continue
        if plan.disruption is None:
            continue
        place = _place(plan.disruption, one)
        if changing[place] >= _most(plan.disruption, places.get(place, 0)):
            found[one.device] = BUDGET.format(place=place or "no site")
        else:
            changing[place] += 1
    return found


def place_of(budget: Disruption, site: str, slices: Mapping[str, str]) -> str:
    """Whose budget a device's change counts against."""
    return site if budget.per == "site" else slices.get(budget.per, "")


def is_open(windows: Sequence[MaintenanceWindow], site: str, now: datetime) -> bool:
    """Whether a device at a site may change now; windows of its own site count alone."""
    own = [window for window in windows if window.site == site]
    fitting = own or [window for window in windows if window.site is None]
    if not fitting:
        return not windows
    return any(_covers(window, now) for window in fitting)


def _covers(window: MaintenanceWindow, now: datetime) -> bool:
    """Whether a moment lies in one of the window's turns, by the wall clock of its zone.

    A turn that a change of the clocks makes shorter or longer begins and ends at its wall times.
    """
    local = now.astimezone(ZoneInfo(window.zone))
    begin, end = _minutes(window.begin), _minutes(window.end)
    minute = 60 * local.hour + local.minute
    today = WEEKDAYS[local.weekday()] in window.days
    if begin < end:
        return today and begin <= minute < end
    yesterday = WEEKDAYS[(local - timedelta(days=1)).weekday()] in window.days
    return (today and minute >= begin) or (yesterday and minute < end)


def _minutes(time: str) -> int:
    return 60 * int(time[:2]) + int(time[3:])


def _place(budget: Disruption | None, one: Waiting) -> str:
    return "" if budget is None else place_of(budget, one.site, one.slices)


def _most(budget: Disruption, devices: int) -> int:
    if budget.most is not None:
        return budget.most
    return max(1, math.floor((budget.share or 0) * devices))


def moment(now_ms: int) -> datetime:
    """UTC time of milliseconds since 1970."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)
