"""The loops of the one process that decides: rollouts, drift, sending, the release list."""

import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_core.errors import SerinusError
from fleet_server import repository, repository_refresh
from fleet_server.config import ServerConfig
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.repository_refresh import Listing, Refresher
from fleet_server.services.catalog import NewRelease
from fleet_server.services.suite import Services

RENEW_EVERY_SECONDS = 600.0


class Leader:
    """Two threads: one decides and sends, one keeps the list of approved releases."""

    def __init__(self, config: ServerConfig, services: Services, gateway: MqttGateway) -> None:
        self._config = config
        self._services = services
        self._gateway = gateway
        self._stop = threading.Event()
        self._complaints: dict[str, str] = {}
        self._watch = RepositoryWatch(config, services)
        self._threads = [
            threading.Thread(target=self._decide, name="decisions", daemon=True),
            threading.Thread(target=self._list, name="repository", daemon=True),
        ]

    def start(self) -> None:
        """Look at the repository once, then run both loops."""
        self._guarded("repository", self._watch.look)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both loops after the step that they are in."""
        self._stop.set()
        self._services.rollouts.changed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)

    def _decide(self) -> None:
        changed = self._services.rollouts.changed
        while not self._stop.is_set():
            changed.clear()
            self._guarded("drift", self._services.drift.observe)
            self._guarded("rollouts", self._services.rollouts.decide)
            self._guarded("desired states", self._send)
            changed.wait(self._config.windows.decide_every_seconds)

    def _send(self) -> None:
        """Send after the commit that wrote the rows; whatever fails is due again next time."""
        due = self._services.desired.to_send()
        if due:
            self._services.desired.sent(self._gateway.send(due))

    def _list(self) -> None:
        while not self._stop.wait(self._config.repository.check_every_seconds):
            self._guarded("repository", self._watch.look)

    def _guarded(self, what: str, step: Callable[[], object]) -> None:
        """Run one step; a failure is told once and the step is tried again next time."""
        try:
            step()
        except SerinusError as error:
            self._complain(what, str(error))
        except Exception as error:
            if self._complain(what, repr(error)):
                traceback.print_exc()
        else:
            self._complaints.pop(what, None)

    def _complain(self, what: str, text: str) -> bool:
        if self._complaints.get(what) == text:
            return False
        self._complaints[what] = text
        print(f"{what}: {text}", file=sys.stderr, flush=True)
        return True


class RepositoryWatch:
    """Takes over what the repository approves, whenever its metadata changes or ages."""

    def __init__(self, config: ServerConfig, services: Services) -> None:
        self._folder = config.repository_dir
        self._pinned = config.data / "trusted_root.json"
        given = config.repository.trusted_root
        self._given = Path(given) if given else None
        self._keys = config.online_keys_dir
        self._lives = (
            timedelta(days=config.repository.snapshot_days),
            timedelta(days=config.repository.timestamp_days),
        )
        self._services = services
        self._seen: object = None
        self._due = datetime.min.replace(tzinfo=UTC)
        self._refused: dict[str, str] = {}

    def look(self) -> None:
        """Read the repository if there is something new, and take over what it lists.

        Raises:
            SerinusError: there is a repository, but it cannot be trusted or read.
        """
        now = datetime.now(UTC)
        state = repository_refresh.state_of(self._folder)
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
        )
        listing = refresher.refresh(now)
        self._refused = dict(listing.refused)
        if listing.releases is not None:
            self._take_over(listing)
        self._services.catalog.report_repository(self._refused, listing.renewal_problem)
        self._seen = repository_refresh.state_of(self._folder)
        self._due = now + timedelta(seconds=RENEW_EVERY_SECONDS)

    def _take_over(self, listing: Listing) -> None:
        assert listing.releases is not None
        listed = repository.listed_digests(listing.releases)
        known = self._services.catalog.known()
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
            self._services.catalog.synchronise(frozenset(listed), new)
