"""What use costs at prices that change, and what budgets say of it."""

from datetime import UTC, datetime

import pytest

from fleet_server.domain import budget, pricing
from fleet_server.domain.pricing import Amounts, Prices

DAY_MS = 86_400_000


def used(day: int, predictions: int = 1000, **more: int) -> Amounts:
    counts = {"cpu_us": 0, "shadow_cpu_us": 0, "sent_bytes": 0, "labels": 0} | more
    return Amounts(day=day, predictions=predictions, **counts)


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_each_day_is_counted_at_the_prices_that_held_on_it() -> None:
    prices = [Prices(day=10, device_second=1.0), Prices(day=20, device_second=3.0)]
    days = [used(9, cpu_us=5_000_000), used(19, cpu_us=2_000_000), used(20, cpu_us=1_000_000)]
    spent = pricing.money(days, prices)
    assert spent is not None
    assert (spent.device, spent.total) == (5.0, 5.0)
    each = pricing.per_thousand(days, prices)
    assert each is not None
    assert each.total == 2.5  # the day without a price is in neither sum


def test_causes_are_apart_and_those_without_a_price_add_nothing() -> None:
    prices = [Prices(day=0, device_second=2.0, megabyte=0.5)]
    day = used(1, cpu_us=1_000_000, shadow_cpu_us=500_000, sent_bytes=4_000_000, labels=9)
    spent = pricing.money([day], prices)
    assert spent == pricing.Money(device=2.0, shadow=1.0, traffic=2.0, labels=0.0, total=5.0)


def test_nothing_costs_nothing_known_without_prices_or_predictions() -> None:
    assert pricing.money([used(1)], []) is None
    assert pricing.money([], [Prices(day=0)]) is None
    assert pricing.per_thousand([used(1, predictions=0)], [Prices(day=0, label=1.0)]) is None


@pytest.mark.parametrize(
    ("span", "first"), [("day", "2028-02-29"), ("month", "2028-02-01"), ("thousand", "2028-02-23")]
)
def test_spans_begin_with_calendar_days(span: budget.Span, first: str) -> None:
    now = moment("2028-02-29T23:59:59")
    assert budget.first_day(span, now) * DAY_MS == moment(first)


def test_a_month_is_expected_to_go_on_as_it_began() -> None:
    half = moment("2027-02-15T00:00")
    state = budget.judge("month", 10.0, 8.0, half)
    assert (state.exceeded, state.expected) == (False, 16.0)
    early = budget.judge("month", 10.0, 8.0, moment("2027-02-01T06:00"))
    assert early.expected is None
    december = budget.judge("month", 10.0, 10.5, moment("2027-12-31T12:00"))
    assert december.exceeded
    assert december.expected == pytest.approx(10.5 / (30.5 / 31))


def test_what_has_no_price_exceeds_nothing() -> None:
    state = budget.judge("day", 1.0, None, moment("2027-02-15T12:00"))
    assert (state.spent, state.expected, state.exceeded) == (None, None, False)
