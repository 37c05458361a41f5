"""How each release fares on each declared slice, and an alert where one is hurt."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.config import FairnessConfig
from fleet_server.domain import fairness
from fleet_server.domain.fairness import ClassFigure, Rules, SliceCounts, SliceFigure
from fleet_server.domain.labelling import ALL, OutcomeKey
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.storage import appeals, journal, labels, releases, slice_sums
from fleet_server.storage.database import Database
from fleet_server.storage.slice_sums import SliceSums

FAIRNESS = "fairness"
EVERY_MS = 60_000


class SliceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of one release: what devices' own labels say, and what told ones do."""

    figure: SliceFigure
    classes: list[ClassFigure]
    """From labels that were told to the server; without them all shares are none."""
    told: int
    """Those labels."""
    appeals: int
    upheld: int


class FairnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """A release on all its slices."""

    release: str
    digest: str
    in_production: bool
    labelled: int
    accuracy: float | None
    """Of all labelled rows: what slices are hidden by."""
    noisy: bool
    """Whether counts carry noise for privacy: figures are blurred, and no alert is raised."""
    slices: list[SliceReport]
    classes: list[ClassFigure]


class Fairness:
    """Read-only reports, and the watch that raises alerts."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, config: FairnessConfig
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._rules = msgspec.convert(config, Rules, from_attributes=True)
        self._looked_ms: int | None = None

    def report(self, name: str) -> FairnessReport:
        """How a release fares by slice; raise :class:`NotFound` where it was never approved."""
        with self._database.read() as connection:
            release = self._catalog.by_name(connection, name)
            present = releases.in_production(connection).get(release.ref.model)
            return self._report(
                connection,
                release,
                in_production=present is not None and present.digest == release.ref.digest,
            )

    def watch(self) -> None:
        """Open an alert for each hurt slice of what is in production; close what is over."""
        now = self._clock()
        if self._looked_ms is not None and now - self._looked_ms < EVERY_MS:
            return
        with self._database.write() as connection:
            found: dict[str, SliceFigure] = {}
            for row in releases.in_production(connection).values():
                release = self._catalog.require(connection, row.digest)
                if release.window_schema.epsilon is None:
                    found |= self._hurt(connection, release)
            self._tell(connection, found, now)
        self._looked_ms = now

    def _hurt(self, connection: sa.Connection, release: Release) -> dict[str, SliceFigure]:
        """``model@version slice`` -> figure of each hurt slice."""
        sums = self._sums(connection, release)
        figures = fairness.figures(_by_value(sums), self._rules)
        return {f"{release.ref.name} {f.slice}": f for f in figures if f.hurt}

    def _sums(self, connection: sa.Connection, release: Release) -> list[SliceSums]:
        return slice_sums.of_release(
            connection,
            release.ref.digest,
            self._rules.rows_per_observation,
            self._rules.device_correlation,
        )

    def _tell(self, connection: sa.Connection, found: dict[str, SliceFigure], now_ms: int) -> None:
        for subject, figure in found.items():
            name = subject.partition(" ")[0]
            title = (
                f"{name} is right on {figure.accuracy or 0:.1%} of {figure.rows} labelled rows of "
                f"{figure.slice}, and on {figure.rest or 0:.1%} of the others"
            )
            detail = {
                "release": name,
                "model": name.partition("@")[0],
                "slice": figure.slice,
                "figure": msgspec.to_builtins(figure),
            }
            if journal.open_alert(connection, now_ms, FAIRNESS, subject, title, detail):
                journal.add_event(connection, now_ms, FAIRNESS, name, title, detail)
        for alert in journal.open_alerts(connection, FAIRNESS):
            if alert.subject not in found:
                journal.close_alert(connection, now_ms, FAIRNESS, alert.subject)

    def _report(
        self, connection: sa.Connection, release: Release, *, in_production: bool
    ) -> FairnessReport:
        sums = self._sums(connection, release)
        told = labels.outcomes_of(connection, [release.ref.digest], 0)
        contested = appeals.by_slice(connection, release.ref.digest)
        right, wrong = sum(s.right for s in sums), sum(s.wrong for s in sums)
        classes = release.manifest.output.classes
        return FairnessReport(
            release=release.ref.name,
            digest=release.ref.digest,
            in_production=in_production,
            labelled=right + wrong,
            accuracy=right / (right + wrong) if right + wrong > 0 else None,
            noisy=release.window_schema.epsilon is not None,
            slices=[
                _slice_report(figure, told, classes, *contested.get(figure.slice, (0, 0)))
                for figure in fairness.figures(_known(sums, told, contested), self._rules)
            ],
            classes=fairness.by_class(_confusion(told, ALL), classes),
        )


def _slice_report(
    figure: SliceFigure,
    told: Counter[OutcomeKey],
    classes: Sequence[str],
    contested: int,
    upheld: int,
) -> SliceReport:
    confusion = _confusion(told, figure.slice)
    return SliceReport(
        figure=figure,
        classes=fairness.by_class(confusion, classes),
        told=sum(confusion.values()),
        appeals=contested,
        upheld=upheld,
    )


def _by_value(sums: Iterable[SliceSums]) -> list[SliceCounts]:
    """Sums by slice value; a device counts for each value that it declares."""
    found: dict[str, SliceCounts] = {}
    for one in sums:
        for value in filter(None, one.slices.split(",")):
            before = found.get(value, _empty(value))
            found[value] = SliceCounts(
                slice=value,
                right=before.right + one.right,
                wrong=before.wrong + one.wrong,
                weighed_right=before.weighed_right + one.weighed_right,
                weighed_wrong=before.weighed_wrong + one.weighed_wrong,
            )
    return list(found.values())


def _known(
    sums: Iterable[SliceSums], told: Iterable[OutcomeKey], contested: Iterable[str]
) -> list[SliceCounts]:
    """The same, with the slices of which only told labels or appeals are known."""
    counts = _by_value(sums)
    have = {one.slice for one in counts}
    more = {key.slice for key in told if key.slice != ALL} | set(contested)
    return counts + [_empty(name) for name in sorted(more - have)]


def _empty(name: str) -> SliceCounts:
    return SliceCounts(slice=name, right=0, wrong=0, weighed_right=0.0, weighed_wrong=0.0)


def _confusion(told: Counter[OutcomeKey], name: str) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for key, count in told.items():
        if key.slice == name:
            found[key.label, key.predicted] += count
    return dict(found)
