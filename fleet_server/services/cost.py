"""What predictions cost, by release."""

import msgspec
import sqlalchemy as sa

from fleet_server.config import CostConfig
from fleet_server.storage import costs, releases
from fleet_server.storage.costs import CostCounts, ReleaseCost
from fleet_server.storage.database import Database

HOUR_MS = 3_600_000
MILLION = 1_000_000
UNKNOWN = "?"


class CostView(msgspec.Struct, frozen=True, kw_only=True):
    """One release; a figure is none where nothing was measured."""

    release: str
    digest: str
    devices: int
    predictions: int
    inferences: int
    """Predictions that ran through the model: neither from memory nor by the fallback."""
    cached: int
    fallbacks: int
    cpu_us_per_prediction: float | None
    shadow_cpu_us_per_row: float | None
    bytes_per_device_hour: float | None
    price_per_million: float | None
    """Processor time and traffic of a million predictions; none without prices."""
    currency: str


class Costs:
    """Read-only questions on cost."""

    def __init__(self, database: Database, config: CostConfig) -> None:
        self._database = database
        self._config = config

    def by_release(self) -> list[CostView]:
        """Every release that devices have sent windows of, by name."""
        with self._database.read() as connection:
            views = self.views(connection).values()
            return sorted(views, key=lambda view: view.release)

    def views(self, connection: sa.Connection) -> dict[str, CostView]:
        """The same by digest."""
        names = releases.names(connection)
        found = costs.by_release(connection)
        return {
            row.digest: _view(row, names.get(row.digest, UNKNOWN), self._config) for row in found
        }


def _view(row: ReleaseCost, name: str, config: CostConfig) -> CostView:
    counts = row.counts
    return CostView(
        release=name,
        digest=row.digest,
        devices=row.devices,
        predictions=counts.predictions,
        inferences=counts.predictions - counts.cached - counts.fallbacks,
        cached=counts.cached,
        fallbacks=counts.fallbacks,
        cpu_us_per_prediction=_ratio(counts.cpu_us, counts.predictions),
        shadow_cpu_us_per_row=_ratio(counts.shadow_cpu_us, counts.shadowed),
        bytes_per_device_hour=_ratio(counts.sent_bytes * HOUR_MS, counts.span_ms),
        price_per_million=_price(counts, config),
        currency=config.currency,
    )


def _price(counts: CostCounts, config: CostConfig) -> float | None:
    if (config.cpu_hour is None and config.megabyte is None) or not counts.predictions:
        return None
    hours = counts.cpu_us / 1e6 / 3600
    megabytes = counts.sent_bytes / 1e6
    spent = hours * (config.cpu_hour or 0) + megabytes * (config.megabyte or 0)
    return spent / counts.predictions * MILLION


def _ratio(amount: int, of: int) -> float | None:
    return amount / of if of else None
