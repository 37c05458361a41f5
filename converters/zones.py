"""Time zones as a definition carries them, from the IANA database of the machine that builds.

A device's own database may be older or missing; what the bundle carries is what training used.
"""

import datetime
import zoneinfo

from edge_core.errors import InvalidConfiguration
from edge_core.features.carried import Zone

UTC = datetime.UTC
STEP = datetime.timedelta(days=1)
"""No zone changes its clocks twice within a day."""


def zone(name: str, first_year: int, last_year: int) -> Zone:
    """The offsets of a zone over whole years of UTC, the last one included.

    Raises:
        InvalidConfiguration: the database has no such zone, or the years are out of order.
    """
    if not 1900 <= first_year <= last_year <= 2200:
        raise InvalidConfiguration("years of a zone run from 1900 to 2200, the first one first")
    try:
        known = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidConfiguration(
            f"no time zone {name}; pip install tzdata, or see the IANA list for its name"
        ) from error
    start = datetime.datetime(first_year, 1, 1, tzinfo=UTC)
    end = datetime.datetime(last_year + 1, 1, 1, tzinfo=UTC)
    first = _offset(known, start)
    transitions, before = [], start
    while before < end:
        after = min(before + STEP, end)
        if _offset(known, before) != _offset(known, after):
            moment = _change(known, before, after)
            transitions.append((int(moment.timestamp()), _offset(known, moment)))
        before = after
    return Zone(
        name=name,
        first_offset_s=first,
        transitions=tuple(transitions),
        from_s=int(start.timestamp()),
        until_s=int(end.timestamp()),
    )


def _offset(known: zoneinfo.ZoneInfo, moment: datetime.datetime) -> int:
    offset = moment.astimezone(known).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def _change(
    known: zoneinfo.ZoneInfo, before: datetime.datetime, after: datetime.datetime
) -> datetime.datetime:
    """The first second with the later offset, by halving."""
    low, high = int(before.timestamp()), int(after.timestamp())
    offset = _offset(known, before)
    while high - low > 1:
        middle = (low + high) // 2
        same = _offset(known, datetime.datetime.fromtimestamp(middle, UTC)) == offset
        low, high = (middle, high) if same else (low, middle)
    return datetime.datetime.fromtimestamp(high, UTC)
