"""What people and programs ask about the fleet: devices, releases, production, figures."""

import itertools
from collections import Counter
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.services import groups
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.cost import Costs, CostView
from fleet_server.services.errors import NotFound
from fleet_server.services.views import (
    DeviceView,
    FleetView,
    ParityView,
    PastProduction,
    ProductionView,
    ReleaseView,
    built_from,
    device_view,
    release_view,
)
from fleet_server.storage import (
    desired_states,
    devices,
    journal,
    parity_counts,
    refusals,
    releases,
    rollouts,
    runs,
    windows,
)
from fleet_server.storage.database import Database
from fleet_server.storage.devices import Device
from fleet_server.storage.journal import Alert, Event, RejectedMessages
from fleet_server.storage.refusals import StoredRefusal
from fleet_server.storage.releases import InProduction, WasInProduction

FEATURES_SHOWN = 64
"""Mismatching features of a release, the most first; a definition has up to 16384."""


class Overview:
    """Read-only questions; each is answered from one state of the database."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock, costs: Costs) -> None:
        self._costs = costs
        self._database = database
        self._catalog = catalog
        self._clock = clock

    @property
    def now_ms(self) -> int:
        """The server's time."""
        return self._clock()

    def devices(
        self, *, query: str = "", after: str | None = None, limit: int = 1000
    ) -> list[DeviceView]:
        """Devices by name, after one of them: those that a query means, or all.

        Raises:
            InvalidRequest: no query.
        """
        with self._database.read() as connection:
            wanted = groups.condition(connection, query, self._clock()) if query else None
            found = devices.page(connection, wanted, after, limit)
            names = [device.device for device in found]
            known = releases.names(connection)
            wishes = desired_states.named(connection, names)
            lost = windows.lost_windows(connection, names)
            return [
                device_view(d, wishes.get(d.device), known, lost.get(d.device, 0)) for d in found
            ]

    def device(self, name: str) -> DeviceView:
        """One device with its whole reported state; raise :class:`NotFound`."""
        with self._database.read() as connection:
            found = devices.one(connection, name)
            if found is None:
                raise NotFound(f"no device {name[:64]!r} has reported yet; see: serinus devices")
            view = device_view(
                found,
                desired_states.one(connection, name),
                releases.names(connection),
                windows.lost_windows(connection, [name]).get(name, 0),
            )
            reported = devices.reported(connection, name)
        return msgspec.structs.replace(
            view, reported=msgspec.json.decode(reported) if reported else None
        )

    def releases(self) -> list[ReleaseView]:
        """Every release that the repository lists or listed."""
        with self._database.read() as connection:
            running = Counter(device.active for device in devices.every(connection))
            sums = windows.totals_by_release(connection)
            every = self._catalog.every(connection)
            parity = _parity(connection, every)
            return [
                release_view(
                    release,
                    running[release.ref.digest],
                    sums.get(release.ref.digest),
                    parity.get(release.ref.digest, ParityView()),
                )
                for release in every
            ]

    def production(self) -> list[ProductionView]:
        """What is in production, by model."""
        with self._database.read() as connection:
            every = devices.every(connection)
            costs = self._costs.by_release(connection)
            return [
                self._production(connection, row, every, costs.get(row.digest))
                for row in releases.in_production(connection).values()
            ]

    def production_history(self, model: str | None) -> list[PastProduction]:
        """What was ever in production, newest first."""
        with self._database.read() as connection:
            names = releases.names(connection)
            found = releases.history(connection, model)
            return [
                _past(connection, row, self._catalog.get(connection, row.digest), names, None)
                for row in found
            ]

    def production_at(self, at_ms: int) -> list[PastProduction]:
        """What was in production at a moment, and what its model's devices ran then."""
        with self._database.read() as connection:
            names = releases.names(connection)
            running = runs.devices_at(connection, at_ms)
            return [
                _past(connection, row, self._catalog.get(connection, row.digest), names, running)
                for row in releases.production_at(connection, at_ms)
            ]

    def _production(
        self,
        connection: sa.Connection,
        row: InProduction,
        every: list[Device],
        cost: CostView | None,
    ) -> ProductionView:
        release = self._catalog.require(connection, row.digest)
        names = releases.names(connection)
        running = Counter(names.get(d.active or "", "") for d in every)
        others = {
            name: count
            for name, count in running.items()
            if name.startswith(f"{row.model}@") and name != release.ref.name
        }
        return ProductionView(
            model=row.model,
            release=release.ref.name,
            digest=row.digest,
            since_ms=row.since_ms,
            devices=sum(device.active == row.digest for device in every),
            others=others,
            cost=cost,
            decided_by={"rollout": row.rollout, "verdict": row.verdict},
            built_from=built_from(release),
        )

    def fleet(self) -> FleetView:
        """Numbers of the whole fleet."""
        with self._database.read() as connection:
            every = devices.every(connection)
            parity = parity_counts.every(connection)
            sums = windows.served(connection)
            return FleetView(
                devices=len(every),
                online=sum(device.online for device in every),
                predictions=sums.rows,
                errors=sums.errors,
                lost_windows=sum(windows.lost_windows(connection).values()),
                parity_compared=sum(row.compared for row in parity),
                parity_mismatches=sum(row.mismatches for row in parity),
                rejected=journal.rejected_count(connection),
                refusals=len(refusals.every(connection)),
                open_alerts=journal.open_count(connection),
            )

    def refusals(
        self, limit: int, after: tuple[int, str, str] | None = None
    ) -> list[StoredRefusal]:
        """Releases that devices would not install, newest first."""
        with self._database.read() as connection:
            return refusals.latest(connection, limit, after)

    def alerts(
        self, limit: int, after: tuple[int, int] | None = None, *, kind: str | None = None
    ) -> list[Alert]:
        """Open alerts, then closed ones; of one kind where named."""
        with self._database.read() as connection:
            return journal.all_alerts(connection, limit, after, kind=kind)

    def alert_kinds(self) -> dict[str, int]:
        """Kind of alert -> how many are open, for each kind that is remembered."""
        with self._database.read() as connection:
            return journal.alert_kinds(connection)

    def events(self, after: int, limit: int) -> list[Event]:
        """Events after one number, oldest first."""
        with self._database.read() as connection:
            return journal.events_after(connection, after, limit)

    def latest_events(self, limit: int) -> list[Event]:
        """The newest events, newest first."""
        with self._database.read() as connection:
            return journal.latest_events(connection, limit)

    def rejected(
        self, limit: int, after: tuple[int, str, str, str] | None = None
    ) -> list[RejectedMessages]:
        """Messages that were not taken in, by reason."""
        with self._database.read() as connection:
            return journal.rejections(connection, limit, after)


def _past(
    connection: sa.Connection,
    row: WasInProduction,
    release: Release | None,
    names: dict[str, str],
    running: dict[str, int] | None,
) -> PastProduction:
    rollout = rollouts.one(connection, row.rollout) if row.rollout else None
    ran = {
        names[digest]: count
        for digest, count in (running or {}).items()
        if names.get(digest, "").startswith(f"{row.model}@")
    }
    return PastProduction(
        model=row.model,
        release=names.get(row.digest, row.digest),
        digest=row.digest,
        since_ms=row.since_ms,
        until_ms=row.until_ms,
        decided_by={
            "rollout": row.rollout,
            "verdict": row.verdict,
            "started_by": rollout.created_by if rollout else None,
        },
        devices=None if running is None else ran,
        built_from=None if release is None else built_from(release),
    )


def _parity(connection: sa.Connection, every: Sequence[Release]) -> dict[str, ParityView]:
    """Counts by release, over all devices."""
    features = parity_counts.mismatches(connection)
    not_possible = parity_counts.not_replayed(connection)
    compared: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    for row in parity_counts.every(connection):
        compared[row.digest] += row.compared
        differing[row.digest] += row.mismatches
    return {
        release.ref.digest: ParityView(
            compared=compared[release.ref.digest],
            mismatches=differing[release.ref.digest],
            features=_first(features.get(release.ref.digest, {})),
            not_possible=not_possible.get(release.ref.digest, 0),
            redacted=[
                release.definition.feature_names[place]
                for place in release.redaction.hidden[:FEATURES_SHOWN]
            ],
        )
        for release in every
    }


def _first(counts: dict[str, int]) -> dict[str, int]:
    return dict(itertools.islice(counts.items(), FEATURES_SHOWN))
