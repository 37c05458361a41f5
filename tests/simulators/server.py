"""A fleet server as people run it: a process of its own on a folder with keys and repository."""

import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters import publishing, signing
from edge_core.bundle import manifest as manifests
from edge_core.errors import SerinusError
from edge_core.features import definition as definitions
from edge_core.release import ReleaseRef
from edge_core.stats import histogram
from edge_core.stats.histogram import Layout
from fleet_client.client import FleetClient
from tests.simulators.device import Accuracy, World
from tests.simulators.processes import Process, command, free_port, wait_for
from tests.simulators.tiny_bundle import tiny_bundle

SETTINGS = """\
data_dir = "{data}"
port = {port}
[mqtt]
port = {mqtt_port}
broker = "{broker}"
[windows]
decide_every_seconds = {decide}
drift_period_seconds = {drift}
[devices]
republish_seconds = 2
[repository]
check_every_seconds = 0.2
[webhooks]
private = true
"""


class FleetServer:
    """Server process, release repository and operator's client below one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        decide: float = 0.3,
        drift: float = 1.0,
        broker: str = "auto",
        certificate_seconds: float | None = None,
    ) -> None:
        """Lay out the folder; with ``certificate_seconds``, that of devices, TLS everywhere."""
        self.folder = folder
        self.data = folder / "data"
        self.keys = folder / "keys"
        self.repository = self.data / "repository"
        self.port = free_port()
        self.mqtt_port = free_port()
        self.data.mkdir(parents=True)
        self.settings = folder / "server.toml"
        self.settings.write_text(
            SETTINGS.format(
                data=self.data,
                port=self.port,
                mqtt_port=self.mqtt_port,
                decide=decide,
                drift=drift,
                broker=broker,
            )
        )
        self.ca_file = None if certificate_seconds is None else self.data / "ca" / "ca.pem"
        if certificate_seconds is not None:
            text = self.settings.read_text().replace("[mqtt]", "[mqtt]\ntls = true")
            days = certificate_seconds / 86_400
            more = f'[tls]\nmode = "fleet"\n[enrolment]\ncertificate_days = {days!r}\n'
            self.settings.write_text(text + more)
            make = [*command("serinus-server"), "certificate", "127.0.0.1", "localhost"]
            subprocess.run(
                [*make, "--config", str(self.settings)], check=True, stdout=subprocess.DEVNULL
            )
        publishing.init_repository(self.repository, self.keys, datetime.now(UTC))
        signing.generate_key(self.keys)
        (self.data / "online").symlink_to(self.keys / "online")
        self.process = Process(
            [*command("serinus-server"), "run", "--config", str(self.settings)],
            folder / "server.log",
        )
        self._client: FleetClient | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"{'http' if self.ca_file is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def client(self) -> FleetClient:
        """The operator's client."""
        if self._client is None:
            token = (self.data / "operator.token").read_text().strip()
            self._client = FleetClient(self.url, token, ca_file=self.ca_file)
        return self._client

    def reconnect(self) -> None:
        """Let the client go by what the file of authorities says now."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        self.process.start()
        self.wait_until_up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()
        self.process.__exit__()

    def wait_until_up(self) -> None:
        """Wait until it answers the operator."""

        def answers() -> bool:
            if not self.process.running:
                raise RuntimeError(self.process.text()[-2000:])
            try:
                self.client.fleet()
            except (SerinusError, OSError):
                return False
            return True

        wait_for(answers, seconds=20, what="the server to answer")

    def restart(self) -> None:
        """End it with SIGKILL and start it again."""
        self.process.kill()
        self.process.start()
        self.wait_until_up()

    def publish(self, version: str, seed: int = 0, **changes: Any) -> ReleaseRef:
        """Build, sign and approve a tiny bundle; wait until the server lists it.

        ``changes``: as for :func:`tests.simulators.tiny_bundle.tiny_bundle`.
        """
        bundle = tiny_bundle(
            self.folder / "bundles" / version,
            version=version,
            seed=seed,
            sign_with=self.keys / "statement.pem",
            **changes,
        )
        ref = publishing.publish(bundle, self.repository, self.keys, datetime.now(UTC))
        wait_for(
            lambda: any(row["digest"] == ref.digest for row in self.client.releases()),
            seconds=10,
            what=f"the server to list {version}",
        )
        return ref

    def world(self, version: str, accuracy: Accuracy, **changes: Any) -> World:
        """What simulated devices need to know of a published release."""
        folder = self.folder / "bundles" / version
        reference = histogram.parse((folder / manifests.REFERENCE).read_bytes())
        definition = definitions.parse((folder / manifests.FEATURES).read_bytes())
        return World(accuracy=accuracy, definition=definition, layout=Layout(reference), **changes)

    def wait_for_state(self, rollout: str, *states: str, seconds: float) -> dict[str, Any]:
        """Wait until a rollout is in one of some states, and return it."""
        row: dict[str, Any] = {}

        def there() -> bool:
            nonlocal row
            row = self.client.rollout(rollout)
            return row["state"] in states

        try:
            wait_for(there, seconds=seconds, what=f"rollout {rollout} to be {states}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {row}") from error
        return row

    def rows(self, query: str) -> list[Any]:
        """Rows of the server's database."""
        connection = sqlite3.connect(self.data / "serinus.sqlite", timeout=10)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
