"""How many labels of a model came, how late they come, and what is estimated meanwhile."""

from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from fleet_server.domain import labelling
from fleet_server.domain.estimation import Estimate
from fleet_server.services import estimated
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock
from fleet_server.services.errors import NotFound
from fleet_server.storage import labels, releases, rollups, slice_sums
from fleet_server.storage.database import Database
from fleet_server.storage.rollups import RollupCounts

LATELY_MS = 2 * rollups.DAY_MS
MOST_SUMS = 20_000


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """How long after their answers first labels come; seconds are upper ends of bins."""

    bins: dict[str, int]
    """``<N`` seconds, powers of two -> labels."""
    median_seconds: float | None
    p95_seconds: float | None


class LabelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of one model, over all of its releases."""

    model: str
    rows: int
    """Answers that devices counted."""
    labelled_on_devices: int
    """Those of them that were labelled where they were given."""
    told: dict[str, int]
    """What became of labels that were told to the server."""
    waiting: int
    """Labels of any model whose prediction is not known yet."""
    never_joined: int
    """Those that were given up, of any model."""
    delays: Delays
    estimated: Estimate | None
    """Accuracy of what is in production over the last day or two, where too few labels came to
    know; blind to concept drift."""


class ReleaseChoice(NamedTuple):
    """Releases of a model whose figures may be shown."""

    names: list[str]
    """``model@version``, the newest first."""
    production: str | None
    shown: str
    """What is in production, or else the newest."""


class LabelStatuses:
    """Read-only questions on labels."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, rows_per_observation: float
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._rows_per_observation = rows_per_observation

    def of_model(self, model: str) -> LabelStatus:
        """Labels of a model; raise :class:`NotFound` where none of its releases is known."""
        with self._database.read() as connection:
            return self._status(connection, model)

    def every(self) -> list[LabelStatus]:
        """The same of every model, by name."""
        with self._database.read() as connection:
            models = sorted({ref.model for ref in releases.identities(connection)})
            return [self._status(connection, model) for model in models]

    def releases_of(self, model: str) -> ReleaseChoice:
        """Releases of a model; raise :class:`NotFound` where none is known."""
        with self._database.read() as connection:
            digests = digests_of(connection, model)
            listed = [r for r in self._catalog.every(connection) if r.ref.digest in set(digests)]
            present = releases.in_production(connection).get(model)
        names = [release.ref.name for release in reversed(listed)]
        now = next((r.ref.name for r in listed if present and r.ref.digest == present.digest), None)
        return ReleaseChoice(names, now, now or names[0])

    def _status(self, connection: sa.Connection, model: str) -> LabelStatus:
        digests = digests_of(connection, model)
        sums = [s for digest in digests for s in slice_sums.of_release(connection, digest)]
        bins = labels.delays(connection, digests)
        return LabelStatus(
            model=model,
            rows=sum(s.rows for s in sums),
            labelled_on_devices=sum(s.right + s.wrong for s in sums),
            told=labels.figures(connection, model),
            waiting=labels.waiting(connection),
            never_joined=labels.figures(connection, "").get("never_joined", 0),
            delays=Delays(
                bins={f"<{2**number}": count for number, count in bins.items()},
                median_seconds=labelling.quantile(bins, 0.5),
                p95_seconds=labelling.quantile(bins, 0.95),
            ),
            estimated=self._estimate(connection, model),
        )

    def _estimate(self, connection: sa.Connection, model: str) -> Estimate | None:
        """Of all arms that the release in production answers in."""
        present = releases.in_production(connection).get(model)
        if present is None:
            return None
        release, now = self._catalog.require(connection, present.digest), self._clock()
        found = rollups.between(
            connection, by_hour=False, digests=[present.digest],
            from_ms=now - LATELY_MS, to_ms=now + 1, limit=MOST_SUMS,
        )  # fmt: skip
        sums = RollupCounts()
        for key, counts in found:
            if key.arm in slice_sums.SERVING:
                sums.merge(counts)
        known = estimated.calibration(connection, release, None, now)
        return estimated.accuracy(release, sums, known, self._rows_per_observation)


def digests_of(connection: sa.Connection, model: str) -> list[str]:
    """Digests of a model's releases; raise :class:`NotFound` where there is none."""
    found = [ref.digest for ref in releases.identities(connection) if ref.model == model]
    if not found:
        raise NotFound(f"no release of a model {model[:64]!r} was ever approved")
    return found
