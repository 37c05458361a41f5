"""What predictions cost: counted by day, release and target, priced, and held against budgets."""

from itertools import count
from typing import Any

import pytest

from edge_core.messages.telemetry import Cost, StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.services.budgets import BUDGET
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.services.labels import ToldAnswer, ToldLabel
from fleet_server.storage import journal
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, TARGET

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MODEL = "tiny-motion"
NUMBERS = count(1)
PEOPLE = {"by": "olga", "role": "operator"}


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


def send(
    fleet: SpokenFleet, ref: ReleaseRef, rows: int, arm: Any = "incumbent", **spent: Any
) -> StatsWindow:
    window = StatsWindow(
        device="d1", epoch="ab", sequence=next(NUMBERS), opened_ms=fleet.clock() - 2000,
        closed_ms=fleet.clock(), release=ref, target=TARGET, arm=arm, slices={"side": "left"},
        rows=rows, cost=Cost(**spent),
    )  # fmt: skip
    fleet.window(window)
    return window


def price(fleet: SpokenFleet, **prices: Any) -> None:
    named = {"device_second": None, "megabyte": None, "label": None, "since_ms": None} | prices
    fleet.services.budgets.set_prices(**named, currency="EUR", **PEOPLE)


def alerts(fleet: SpokenFleet) -> list[str]:
    with fleet.services.database.read() as connection:
        return [alert.title for alert in journal.open_alerts(connection, BUDGET)]


def test_cost_is_added_up_by_release_and_target(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    send(fleet, ref, 90, cpu_us=1800, cached=30, sent_bytes=450, span_ms=HOUR_MS)
    send(fleet, ref, 10, "fallback", cpu_us=200)
    shadow = send(fleet, ref, 50, "shadow", cpu_us=500)
    fleet.window(shadow)
    send(fleet, ref, 0, sent_bytes=150, span_ms=HOUR_MS)
    (plain,) = fleet.services.costs.by_target(None)
    assert (plain.per_thousand, plain.spent) == (None, None)
    price(fleet, device_second=0.001, megabyte=10.0)
    (view,) = fleet.services.costs.by_target(1)
    assert (view.release, view.target, view.currency) == (ref.name, TARGET, "EUR")
    assert (view.predictions, view.cached, view.fallbacks, view.inferences) == (100, 30, 10, 60)
    assert (view.cpu_us_per_prediction, view.shadow_cpu_us_per_row) == (20.0, 10.0)
    assert view.bytes_per_device_hour == 300
    assert view.per_thousand is not None
    assert view.spent is not None
    # 2,000 us at .001 a second, 500 us as a shadow, and 600 bytes at .00001 each.
    assert view.spent.total == pytest.approx(2e-6 + 5e-7 + 6e-3)
    assert view.per_thousand.device == pytest.approx(2e-5)
    assert view.per_thousand.traffic == pytest.approx(6e-2)


def test_only_the_days_that_are_asked_for_count(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    send(fleet, ref, 10)
    fleet.clock.now += 2 * DAY_MS
    send(fleet, ref, 5)
    assert [v.predictions for v in fleet.services.costs.by_target(2)] == [5]
    assert [v.predictions for v in fleet.services.costs.by_target(3)] == [15]
    assert [v.predictions for v in fleet.services.costs.by_target(None)] == [15]


def test_a_new_price_leaves_the_past_as_it_was(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    price(fleet, device_second=1.0)
    send(fleet, ref, 1000, cpu_us=1_000_000)
    fleet.clock.now += DAY_MS
    price(fleet, device_second=5.0)
    send(fleet, ref, 1000, cpu_us=1_000_000)
    (view,) = fleet.services.costs.by_target(None)
    assert view.spent is not None
    assert view.spent.total == pytest.approx(6.0)
    price(fleet, device_second=2.0, since_ms=0)
    assert [p.device_second for p in fleet.services.budgets.prices()] == [2.0, 1.0, 5.0]


def test_labels_cost_once_each_however_often_they_are_told(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    price(fleet, label=0.5)
    answer = ToldAnswer(
        device="d1", release=ref.digest, predicted=CLASSES[0], at_ms=fleet.clock(), target=TARGET
    )
    for name in (CLASSES[0], CLASSES[0], CLASSES[1]):
        fleet.services.labels.take(
            [ToldLabel(prediction_id="p1", label=name, answer=answer)], "labeller"
        )
    (view,) = fleet.services.costs.by_target(None)
    assert view.labels == 1
    assert view.spent is not None
    assert (view.spent.labels, view.spent.total) == (0.5, 0.5)


def test_a_budget_that_is_exceeded_alerts_and_ends_with_its_day(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    budgets = fleet.services.budgets
    price(fleet, device_second=1.0)
    budgets.set(MODEL, "day", 2.0, **PEOPLE)
    send(fleet, ref, 10, cpu_us=1_900_000)
    budgets.watch()
    assert alerts(fleet) == []
    send(fleet, ref, 10, cpu_us=200_000)
    fleet.clock.now += 61_000
    budgets.watch()
    assert alerts(fleet) == [f"{MODEL} has cost 2.1 of 2 EUR for today"]
    (view,) = budgets.every()
    assert (view.spent, view.exceeded) == (pytest.approx(2.1), True)
    fleet.clock.now += DAY_MS
    budgets.watch()
    assert alerts(fleet) == []


def test_the_price_of_a_thousand_waits_for_a_thousand(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    budgets = fleet.services.budgets
    price(fleet, device_second=1.0)
    budgets.set(MODEL, "thousand", 0.5, **PEOPLE)
    send(fleet, ref, 999, cpu_us=999_000)
    (view,) = budgets.every()
    assert (view.spent, view.exceeded) == (None, False)
    send(fleet, ref, 1, cpu_us=1_000)
    (view,) = budgets.every()
    assert (view.spent, view.exceeded) == (pytest.approx(1.0), True)


def test_dropping_a_budget_closes_its_alert(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    budgets = fleet.services.budgets
    price(fleet, device_second=1.0)
    budgets.set(MODEL, "month", 0.1, **PEOPLE)
    send(fleet, ref, 10, cpu_us=1_000_000)
    budgets.watch()
    assert len(alerts(fleet)) == 1
    budgets.drop(MODEL, "month", **PEOPLE)
    assert (alerts(fleet), budgets.every()) == ([], [])
    with pytest.raises(NotFound, match="no budget"):
        budgets.drop(MODEL, "month", **PEOPLE)


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        ({}, "name at least one"),
        ({"label": -1.0}, "label is 0 to"),
        ({"megabyte": float("nan")}, "megabyte is 0 to"),
        ({"label": 1.0, "since_ms": 2**52}, "hold from today on"),
    ],
)
def test_prices_that_cannot_be_are_refused(
    fleet: SpokenFleet, prices: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        price(fleet, **prices)
    assert fleet.services.budgets.prices() == []


def test_budgets_that_cannot_be_are_refused(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    budgets = fleet.services.budgets
    with pytest.raises(NotFound, match="was ever approved"):
        budgets.set("nobody", "day", 1.0, **PEOPLE)
    for span, amount in (("year", 1.0), ("day", 0.0), ("day", float("inf"))):
        with pytest.raises(InvalidRequest, match="a budget is"):
            budgets.set(ref.model, span, amount, **PEOPLE)
