"""The approved releases: taken over from the repository, and ready to interpret windows with."""

import threading
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.features import redaction
from edge_core.features.definition import FeatureDefinition
from edge_core.features.redaction import Redaction
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.messages.window_schema import WindowSchema, tag_of
from edge_core.release import ReleaseRef
from edge_core.stats import histogram
from edge_core.stats.histogram import Layout, Reference
from fleet_server.services import standing
from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.storage import journal, releases
from fleet_server.storage.database import Database
from fleet_server.storage.releases import StoredRelease


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release with its parsed parts."""

    ref: ReleaseRef
    listed: bool
    listed_ms: int
    revoked_ms: int | None
    manifest: Manifest
    definition: FeatureDefinition
    definition_digest: str
    reference: Reference
    layout: Layout
    window_schema: WindowSchema
    redaction: Redaction
    targets: frozenset[str]


class NewRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release as the repository hands it over, its bytes verified."""

    ref: ReleaseRef
    manifest: bytes
    features: bytes
    reference: bytes


class Catalog:
    """Releases by digest. A release's bytes never change, so parsed parts are kept."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._parsed: dict[str, Release] = {}
        self._tags: dict[bytes, str] = {}
        """Beginning of a digest -> digest."""
        self._lock = threading.Lock()

    def known(self) -> dict[str, bool]:
        """Digest -> whether the repository lists it now."""
        with self._database.read() as connection:
            return releases.listing(connection)

    def synchronise(self, listed: frozenset[str], new: Sequence[NewRelease]) -> None:
        """Take over what the repository lists now; ``new`` holds those not listed before.

        A release whose parts are not valid is left out, and an alert says why.
        """
        now = self._clock()
        with self._database.write() as connection:
            before = releases.listing(connection)
            for release in new:
                self._take(connection, _stored(release, now))
            for digest, was_listed in before.items():
                if was_listed and digest not in listed:
                    releases.revoke(connection, digest, now)
                    name = releases.names(connection)[digest]
                    journal.add_event(connection, now, "release", name, "no longer approved")
            standing.watch(connection, now)
        with self._lock:
            self._parsed.clear()
            self._tags.clear()

    def report_repository(self, refused: dict[str, str], renewal_problem: str) -> None:
        """Open an alert for each file that is not accepted, and close those that are over."""
        problems = {name: f"{name} is not accepted: {reason}" for name, reason in refused.items()}
        if renewal_problem:
            problems["renewal"] = f"the list of releases cannot be renewed: {renewal_problem}"
        now = self._clock()
        with self._database.write() as connection:
            for subject, title in problems.items():
                if journal.open_alert(connection, now, "repository", subject, title, {}):
                    journal.add_event(connection, now, "repository", subject, title)
            for alert in journal.open_alerts(connection, "repository"):
                if alert.subject not in problems and "@" not in alert.subject:
                    journal.close_alert(connection, now, "repository", alert.subject)

    def _take(self, connection: sa.Connection, release: StoredRelease) -> None:
        now = release.listed_ms
        try:
            definition = _parse(release).definition
            if isinstance(definition, RequestDefinition):
                # Only here: a release that was taken is shown, whatever functions a later server
                # lacks.
                RequestEvaluator(definition)
        except InvalidBundle as error:
            title = f"{release.name} is approved but cannot be used: {error}"
            if journal.open_alert(connection, now, "repository", release.name, title, {}):
                journal.add_event(connection, now, "repository", release.name, title)
            return
        releases.add(connection, release)
        journal.close_alert(connection, now, "repository", release.name)
        journal.add_event(connection, now, "release", release.name, "approved by the repository")

    def get(self, connection: sa.Connection, digest: str) -> Release | None:
        """One release, parsed once; none where it is not known."""
        with self._lock:
            found = self._parsed.get(digest)
        if found is None:
            stored = releases.one(connection, digest)
            if stored is None:
                return None
            found = _parse(stored)
            with self._lock:
                self._parsed[digest] = found
        return found

    def tagged(self, connection: sa.Connection, tag: bytes) -> Release | None:
        """The release whose digest begins so; none where it is not known, or two do."""
        with self._lock:
            digest = self._tags.get(tag)
        if digest is None:
            found = releases.beginning(connection, tag.hex())
            if len(found) != 1:
                return None
            (digest,) = found
            with self._lock:
                self._tags[tag_of(digest)] = digest
        return self.get(connection, digest)

    def require(self, connection: sa.Connection, digest: str) -> Release:
        """One release that something else refers to."""
        release = self.get(connection, digest)
        if release is None:
            raise NotFound(f"no release has the digest {digest}")
        return release

    def by_name(self, connection: sa.Connection, name: str) -> Release:
        """Find ``model@version``.

        Raises:
            InvalidRequest: the name has another form.
            NotFound: the repository never listed it.
        """
        model, at, version = name.partition("@")
        if not (model and at and version):
            raise InvalidRequest(f"{name[:100]!r} is not a release: write it as model@1.2.3")
        stored = releases.by_name(connection, model, version)
        if stored is None:
            have = ", ".join(sorted(releases.names(connection).values())) or "none so far"
            raise NotFound(f"release {name[:100]} is not approved; approved are: {have}")
        return self._fresh(connection, stored)

    def every(self, connection: sa.Connection) -> list[Release]:
        """All releases in the order in which they were listed."""
        return [self._fresh(connection, stored) for stored in releases.every(connection)]

    def _fresh(self, connection: sa.Connection, stored: StoredRelease) -> Release:
        """Return the release with its present standing, which the kept parts may lag behind."""
        return msgspec.structs.replace(
            self.require(connection, stored.digest),
            listed=stored.listed,
            listed_ms=stored.listed_ms,
            revoked_ms=stored.revoked_ms,
        )


def _stored(release: NewRelease, now_ms: int) -> StoredRelease:
    return StoredRelease(
        digest=release.ref.digest,
        model=release.ref.model,
        version=release.ref.version,
        manifest=release.manifest,
        features=release.features,
        reference=release.reference,
        listed=True,
        listed_ms=now_ms,
        revoked_ms=None,
    )


def _parse(stored: StoredRelease) -> Release:
    manifest = manifests.parse(stored.manifest)
    reference = histogram.parse(stored.reference)
    definition = definitions.parse(stored.features)
    ref = ReleaseRef(model=stored.model, version=stored.version, digest=stored.digest)
    return Release(
        ref=ref,
        listed=stored.listed,
        listed_ms=stored.listed_ms,
        revoked_ms=stored.revoked_ms,
        manifest=manifest,
        definition=definition,
        definition_digest=definitions.digest(definition),
        reference=reference,
        layout=Layout(reference),
        window_schema=WindowSchema.of(ref, manifest, reference, definition.raw_shape[0]),
        redaction=redaction.of(definition, manifest),
        targets=frozenset(variant.target for variant in manifest.variants),
    )
