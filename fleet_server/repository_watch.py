"""Takes over what the release repository approves, whenever its metadata changes or ages."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_core.errors import SerinusError
from fleet_server import repository, repository_endings, repository_refresh
from fleet_server.config import ServerConfig
from fleet_server.repository_refresh import Listing, Refresher
from fleet_server.services.catalog import Catalog, NewRelease
from fleet_server.services.repository_expiry import RepositoryExpiry

RENEW_EVERY_SECONDS = 600.0


class RepositoryWatch:
    """Looks at one repository folder; cheap while nothing changed there."""

    def __init__(
        self, config: ServerConfig, catalog: Catalog, expiry: RepositoryExpiry | None = None
    ) -> None:
        self._folder = config.repository_dir
        self._pinned = config.data / "trusted_root.json"
        given = config.repository.trusted_root
        self._given = Path(given) if given else None
        self._keys = config.online_keys_dir
        self._lives = (
            timedelta(days=config.repository.snapshot_days),
            timedelta(days=config.repository.timestamp_days),
        )
        self._passphrase = config.repository.online_passphrase()
        self._catalog = catalog
        self._expiry = expiry
        self._seen: object = None
        self._due = datetime.min.replace(tzinfo=UTC)
        self._refused: dict[str, str] = {}

    def look(self) -> None:
        """Read the repository if there is something new, and take over what it lists.

        Raises:
            SerinusError: there is a repository, but it cannot be trusted or read.
        """
        now = datetime.now(UTC)
        state = repository_refresh.state_of(self._folder, self._keys)
        if not state or (state == self._seen and now < self._due):
            return
        pinned = repository_refresh.pin_root(self._folder, self._pinned, self._given)
        if pinned is None:
            return
        refresher = Refresher(
            self._folder,
            self._keys,
            pinned,
            snapshot_life=self._lives[0],
            timestamp_life=self._lives[1],
            passphrase=self._passphrase,
        )
        if self._expiry is not None:  # first, for what has expired is refused below
            self._expiry.report(repository_endings.endings(self._folder, pinned))
        listing = refresher.refresh(now)
        self._refused = dict(listing.refused)
        if listing.releases is not None:
            self._take_over(listing)
        self._catalog.report_repository(self._refused, listing.renewal_problem)
        self._seen = repository_refresh.state_of(self._folder, self._keys)
        self._due = now + timedelta(seconds=RENEW_EVERY_SECONDS)

    def _take_over(self, listing: Listing) -> None:
        assert listing.releases is not None
        listed = repository.listed_digests(listing.releases)
        known = self._catalog.known()
        new = []
        for digest, place in listed.items():
            if known.get(digest):
                continue
            try:
                found = repository.read_release(self._folder, listing.releases, digest, place)
            except SerinusError as error:
                self._refused[place] = str(error)
                continue
            new.append(
                NewRelease(
                    ref=found.ref,
                    manifest=found.manifest_bytes,
                    features=found.features,
                    reference=found.reference,
                )
            )
        standing = {digest for digest, is_listed in known.items() if is_listed}
        if new or standing - set(listed):
            self._catalog.synchronise(frozenset(listed), new)
