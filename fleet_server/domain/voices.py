"""How much of what a device says counts for the fleet in one drift period.

Periods are merged over all devices, so one that claims a billion rows would be the world. As in
verdicts (ADR 0020), a device counts for at most :data:`weighing.MOST_TIMES` the rows of the median
device. The median is of what each device claimed in the last period in which it spoke, so that it
is known where windows come seldom; until three devices have spoken, nobody knows what is usual.
"""

import statistics

from fleet_server.domain.weighing import ENOUGH_DEVICES, MOST_TIMES

REMEMBERED_PERIODS = 10_000
"""Devices that have said nothing for so long are forgotten."""


class Voices:
    """What devices claimed, by release and arm; lives as long as the process that takes it in."""

    def __init__(self) -> None:
        """Know nobody."""
        self._heard: dict[tuple[str, str], _Heard] = {}

    def share(self, digest: str, arm: str, period: int, device: str, rows: int) -> float:
        """Take note of a window's rows; the share of it that counts, 0 to 1."""
        heard = self._heard.setdefault((digest, arm), _Heard())
        left = heard.left(period, device, rows)
        return 1.0 if rows <= left else left / rows


class _Heard:
    """Of one release in one arm."""

    def __init__(self) -> None:
        self._period = -1
        self._most = float("inf")
        self._claims: dict[str, tuple[int, int]] = {}
        """Device -> (period in which it spoke last, rows that it claimed in it)."""

    def left(self, period: int, device: str, rows: int) -> float:
        """Rows that the device may still count for in this period, before it claims these."""
        if period != self._period:
            self._turn(period)
        last, before = self._claims.get(device, (period, 0))
        before = before if last == period else 0
        self._claims[device] = period, before + rows
        return max(0.0, self._most - before)

    def _turn(self, period: int) -> None:
        oldest = period - REMEMBERED_PERIODS
        self._claims = {name: said for name, said in self._claims.items() if said[0] >= oldest}
        rows = [claimed for _, claimed in self._claims.values() if claimed]
        enough = len(rows) >= ENOUGH_DEVICES
        self._most = MOST_TIMES * statistics.median(rows) if enough else float("inf")
        self._period = period
