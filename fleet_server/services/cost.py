"""What predictions cost, by release and target."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain import budget, pricing
from fleet_server.domain.pricing import Amounts, Money
from fleet_server.services.clock import Clock
from fleet_server.storage import budgets, costs, releases
from fleet_server.storage.budgets import StoredPrices
from fleet_server.storage.costs import CostCounts, CostKey
from fleet_server.storage.database import Database

HOUR_MS = 3_600_000
UNKNOWN = "?"

Day = tuple[CostKey, CostCounts]


class CostView(msgspec.Struct, frozen=True, kw_only=True):
    """One release on one target, or on all of them; a figure is none where nothing was measured."""

    release: str
    digest: str
    target: str
    """Empty: all of them."""
    predictions: int
    inferences: int
    """Predictions that ran through the model: neither from memory nor by the fallback."""
    cached: int
    fallbacks: int
    labels: int
    cpu_us_per_prediction: float | None
    shadow_cpu_us_per_row: float | None
    bytes_per_device_hour: float | None
    per_thousand: Money | None
    """What a thousand predictions cost; none without prices."""
    spent: Money | None
    currency: str


class Costs:
    """Read-only questions on cost."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def by_target(self, days: int | None) -> list[CostView]:
        """Every release and target that devices have sent windows of, by name.

        Args:
            days: how many, today included; none: all that is known.
        """
        first = 0 if days is None else budget.day_of(self._clock()) - days + 1
        with self._database.read() as connection:
            names = releases.names(connection)
            prices = budgets.every_price(connection)
            found: dict[tuple[str, str], list[Day]] = {}
            for key, counts in costs.since(connection, first).items():
                found.setdefault((key.digest, key.target), []).append((key, counts))
        views = [
            _view(names.get(digest, UNKNOWN), digest, target, days_of, prices)
            for (digest, target), days_of in found.items()
        ]
        return sorted(views, key=lambda view: (view.release, view.target))

    def by_release(self, connection: sa.Connection) -> dict[str, CostView]:
        """All that is known of each release on all targets together, by digest."""
        names = releases.names(connection)
        prices = budgets.every_price(connection)
        found: dict[str, list[Day]] = {}
        for key, counts in costs.since(connection, 0).items():
            found.setdefault(key.digest, []).append((key, counts))
        return {
            digest: _view(names.get(digest, UNKNOWN), digest, "", days_of, prices)
            for digest, days_of in found.items()
        }


def amounts(key: CostKey, counts: CostCounts) -> Amounts:
    """What a price is for, of what was counted."""
    return Amounts(
        day=key.day,
        predictions=counts.predictions,
        cpu_us=counts.cpu_us,
        shadow_cpu_us=counts.shadow_cpu_us,
        sent_bytes=counts.sent_bytes,
        labels=counts.labels,
    )


def _view(
    name: str, digest: str, target: str, days: Sequence[Day], prices: Sequence[StoredPrices]
) -> CostView:
    counts = CostCounts()
    for _, each in days:
        counts.merge(each)
    used = [amounts(key, each) for key, each in days]
    return CostView(
        release=name,
        digest=digest,
        target=target,
        predictions=counts.predictions,
        inferences=counts.predictions - counts.cached - counts.fallbacks,
        cached=counts.cached,
        fallbacks=counts.fallbacks,
        labels=counts.labels,
        cpu_us_per_prediction=_ratio(counts.cpu_us, counts.predictions),
        shadow_cpu_us_per_row=_ratio(counts.shadow_cpu_us, counts.shadowed),
        bytes_per_device_hour=_ratio(counts.sent_bytes * HOUR_MS, counts.span_ms),
        per_thousand=pricing.per_thousand(used, prices),
        spent=pricing.money(used, prices),
        currency=prices[-1].currency if prices else "",
    )


def _ratio(amount: int, of: int) -> float | None:
    return amount / of if of else None
