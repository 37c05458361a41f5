"""When a device may change: windows by the wall clock of their zone, budgets by place."""

from datetime import UTC, datetime

import msgspec
import pytest

from edge_core.errors import InvalidConfiguration
from fleet_server.domain import plan as plans
from fleet_server.domain.pacing import BUDGET, CLOSED, Waiting, held_back, is_open
from fleet_server.domain.plan import DEFAULT_PLAN, Disruption, MaintenanceWindow, Plan, Stage

MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


NIGHT = MaintenanceWindow(days=["mon"], begin="22:00", end="04:00")


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        (at(23, 21, 59), False),
        (at(23, 22), True),
        (at(24, 3, 59), True),  # Tuesday morning belongs to Monday's night
        (at(24, 4), False),
        (at(23, 3), False),  # Monday morning belongs to Sunday's, which has none
        (at(24, 22), False),
    ],
)
def test_a_window_over_midnight(now: datetime, open_: bool) -> None:
    assert is_open([NIGHT], "", now) == open_


def test_windows_follow_the_clocks_of_their_zone() -> None:
    berlin = MaintenanceWindow(begin="02:00", end="04:00", zone="Europe/Berlin")
    assert is_open([berlin], "", at(23, 2, 30))  # 03:30 in winter
    assert not is_open([berlin], "", at(23, 2, 30, month=7))  # 04:30 in summer
    assert is_open([berlin], "", at(23, 0, 30, month=7))


def test_a_site_has_its_own_windows_and_others_the_general_one() -> None:
    windows = [NIGHT, MaintenanceWindow(begin="12:00", end="13:00", site="oslo")]
    assert is_open(windows, "oslo", MONDAY)
    assert not is_open(windows, "rome", MONDAY)
    only_oslo = windows[1:]
    assert not is_open(only_oslo, "rome", MONDAY)
    assert is_open([], "rome", MONDAY)


def plan(**changes: object) -> Plan:
    return Plan(stages=DEFAULT_PLAN.stages, **changes)  # type: ignore[arg-type]


def fleet(site: str, count: int, changing: int = 0) -> list[Waiting]:
    return [Waiting(f"{site}{place}", site, {}, place < changing) for place in range(count)]


def test_a_site_never_has_more_devices_changing_than_its_budget() -> None:
    budget = plan(disruption=Disruption(share=0.25))
    held = held_back(budget, [*fleet("a", 8), *fleet("b", 3)], {"a": 8, "b": 3}, MONDAY)
    assert len(held) == 6 + 2  # a quarter of 8, and at least one of 3
    assert held["a7"] == BUDGET.format(place="a")
    held = held_back(budget, fleet("a", 8, changing=2), {"a": 8}, MONDAY)
    assert len(held) == 6


def test_a_budget_may_be_counted_by_slice_and_in_devices() -> None:
    budget = plan(disruption=Disruption(per="ward", most=1))
    waiting = [Waiting(f"d{n}", "", {"ward": "abc"[n % 3]}, False) for n in range(9)]
    assert len(held_back(budget, waiting, {}, MONDAY)) == 6


def test_closed_hours_hold_all_that_have_not_begun() -> None:
    held = held_back(plan(maintenance=[NIGHT]), fleet("a", 3, changing=1), {}, MONDAY)
    assert held == {"a1": CLOSED, "a2": CLOSED}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"disruption": {"per": "site"}}, "most or share"),
        ({"maintenance": [{"begin": "25:00", "end": "01:00"}]}, "begin"),
        ({"maintenance": [{"begin": "22:00", "end": "01:00", "zone": "Mars"}]}, "Mars"),
        ({"holdout": 0.9}, "holdout"),
        ({"holdot": 0.1}, "did you mean holdout"),
        ({"stages": [{"kind": "canary"}]}, "share or devices"),
        ({"stages": [{"kind": "canary", "share": 0.1, "devices": 3}]}, "share or devices"),
        ({"v": 3}, "version 3"),
    ],
)
def test_plans_that_make_no_sense_are_refused_in_one_line(
    part: dict[str, object], said: str
) -> None:
    settings = msgspec.to_builtins(DEFAULT_PLAN) | part
    with pytest.raises(InvalidConfiguration, match=said) as refused:
        plans.parse(msgspec.json.encode(settings))
    assert "\n" not in str(refused.value)


def test_a_plan_of_version_1_is_read() -> None:
    found = plans.parse(b'{"v": 1, "stages": [{"kind": "canary", "share": 0.1}], "delta": 0.02}')
    assert found.stages == [Stage(kind="canary", share=0.1)]
    assert (found.holdout, found.attempts, found.maintenance) == (0.0, 3, [])
