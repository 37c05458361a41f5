"""Local time from a carried table against Python's own, over changes of clocks."""

import datetime
import math
import zoneinfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import zones
from edge_core.errors import InvalidConfiguration, InvalidInput
from edge_core.features import local_time
from edge_core.features.carried import Calendar
from edge_core.features.local_time import DAY, SECOND, Clock, Dates
from edge_core.features.over_rows import TimePart
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Request, Time

NAMES = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
CARRIED = {name: zones.zone(name, 2012, 2014) for name in NAMES}
CLOCKS = {name: Clock(carried) for name, carried in CARRIED.items()}
FIRST = int(datetime.datetime(2012, 1, 1, tzinfo=datetime.UTC).timestamp())
LAST = int(datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC).timestamp()) - 1
CHANGES = [moment for carried in CARRIED.values() for moment, _ in carried.transitions]
MOMENTS = st.one_of(
    st.integers(FIRST, LAST),
    st.builds(
        lambda change, off: min(max(change + off, FIRST), LAST),
        st.sampled_from(CHANGES),
        st.integers(-7200, 7200),
    ),
)


@given(st.sampled_from(NAMES), MOMENTS)
def test_parts_of_local_time_are_pythons(name: str, moment: int) -> None:
    local = CLOCKS[name].local(np.array([moment * SECOND]))
    shown = datetime.datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(name))
    assert local_time.part(local, "hour").tolist() == [shown.hour]
    assert local_time.part(local, "weekday").tolist() == [shown.weekday()]
    assert local_time.part(local, "month").tolist() == [shown.month - 1]
    assert local_time.part(local, "minute_of_day").tolist() == [shown.hour * 60 + shown.minute]


@given(st.sampled_from(NAMES), MOMENTS)
def test_phases_are_those_of_the_calendar(name: str, moment: int) -> None:
    local = CLOCKS[name].local(np.array([moment * SECOND]))
    shown = datetime.datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(name)).replace(tzinfo=None)
    day = datetime.timedelta(days=1)
    midnight = shown.replace(hour=0, minute=0, second=0)
    year = datetime.datetime(shown.year, 1, 1)
    length = datetime.datetime(shown.year + 1, 1, 1) - year
    for period, phase in (
        ("day", (shown - midnight) / day),
        ("week", (shown - midnight + shown.weekday() * day) / (7 * day)),
        ("year", (shown - year) / length),
    ):
        sine, cosine = local_time.cyclic(local, period)
        assert sine[0] == pytest.approx(math.sin(2 * math.pi * phase), abs=1e-9)
        assert cosine[0] == pytest.approx(math.cos(2 * math.pi * phase), abs=1e-9)


def test_new_york_changes_its_clocks_twice_a_year() -> None:
    carried = CARRIED["America/New_York"]
    assert carried.first_offset_s == -5 * 3600
    assert [offset for _, offset in carried.transitions] == [-4 * 3600, -5 * 3600] * 3


@pytest.mark.parametrize("moment", [FIRST - 1, LAST + 1])
def test_a_moment_beyond_the_table_is_refused_not_guessed(moment: int) -> None:
    clock = CLOCKS["Europe/Berlin"]
    with pytest.raises(InvalidInput, match="newer time zone database"):
        clock.local(np.array([FIRST * SECOND, moment * SECOND]))
    with pytest.raises(InvalidInput, match="table of Europe/Berlin, which is known from"):
        clock.local_of(moment * SECOND)
    clock.local(np.array([FIRST * SECOND, LAST * SECOND]))
    clock.local_of(FIRST * SECOND)


def test_a_missing_moment_is_missing_and_not_beyond_the_table() -> None:
    moment = Time(name="sold", null_policy="keep")
    hour = TimePart(name="hour", input="sold", part="hour", zone="Europe/Berlin", default=-1)
    definition = RequestDefinition(
        request=Request(time="at", fields=[Time(name="at"), moment]),
        zones=(CARRIED["Europe/Berlin"],),
        features=(hour,),
    )
    for rows in (1, 9):
        request = {"at": [0] * rows, "sold": [None] * rows}
        assert RequestEvaluator(definition).ask(request).tolist() == [[-1]] * rows


@pytest.mark.parametrize(("name", "years"), [("Mars/Base", (2012, 2013)), ("UTC", (2013, 2012))])
def test_a_zone_that_cannot_be_carried_is_refused(name: str, years: tuple[int, int]) -> None:
    with pytest.raises(InvalidConfiguration):
        zones.zone(name, *years)


@given(
    st.sets(st.dates(datetime.date(1960, 1, 1), datetime.date(2030, 1, 1)), min_size=1), st.data()
)
def test_holidays_are_looked_up_by_local_date(
    dates: set[datetime.date], data: st.DataObject
) -> None:
    calendar = Dates(Calendar(name="holidays", dates=sorted(dates)))
    near = st.builds(
        lambda date, off: date + datetime.timedelta(days=off),
        st.sampled_from(sorted(dates)),
        st.integers(-20, 20),
    )
    date = data.draw(near)
    days = (date - datetime.date(1970, 1, 1)).days
    at_noon = np.array([days * DAY + DAY // 2])
    assert calendar.holds(at_noon).tolist() == [float(date in dates)]
    distances = sorted(((found - date).days for found in dates), key=lambda d: (abs(d), -d))
    assert calendar.days_to(at_noon, 14).tolist() == [min(max(distances[0], -14), 14)]


ODD = [
    "America/Sao_Paulo",  # summer in December; none since 2019
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",  # a quarter off, since 1986
    "Europe/Dublin",  # winter time is the exception
    "Africa/Casablanca",  # back for Ramadan
    "Antarctica/Troll",  # two hours
    "Pacific/Apia",  # went over the date line: a day that never was
    "Africa/Monrovia",  # 44 minutes and 30 seconds until 1972
    "America/St_Johns",
]


@pytest.mark.parametrize("name", ODD)
def test_every_change_of_clocks_is_pythons(name: str) -> None:
    """To the microsecond before and after, and an hour that is twice or never."""
    carried, known = zones.zone(name, 1971, 2030), zoneinfo.ZoneInfo(name)
    assert carried.transitions
    steps = [0, -1, 1, -SECOND, SECOND, 1800 * SECOND, -3600 * SECOND, 3600 * SECOND]
    moments = [
        moment * SECOND + step
        for moment, _ in [(FIRST, 0), *carried.transitions]
        for step in steps
        if moment * SECOND + step < carried.until_s * SECOND
    ]
    clock, epoch = Clock(carried), datetime.datetime(1970, 1, 1)
    found = clock.local(np.array(moments))
    for moment, local in zip(moments, found.tolist(), strict=True):
        utc = (epoch + datetime.timedelta(microseconds=moment)).replace(tzinfo=datetime.UTC)
        shown = utc.astimezone(known).replace(tzinfo=None)
        assert local == (shown - epoch) // datetime.timedelta(microseconds=1)
        assert clock.local_of(moment) == local


def test_local_time_jumps_forward_over_a_gap_and_back_at_an_overlap() -> None:
    clock = Clock(CARRIED["Europe/Berlin"])
    for date, hours in (("2013-03-31", [1, 3]), ("2013-10-27", [2, 2])):
        before = int(np.datetime64(f"{date}T00:30", "us").astype(np.int64))
        local = clock.local(np.array([before, before + 3600 * SECOND]))
        assert local_time.part(local, "hour").tolist() == hours
