"""Several server processes on one PostgreSQL database and one broker, as large fleets run."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from converters import publishing, signing
from edge_core.errors import SerinusError
from edge_core.release import ReleaseRef
from fleet_client.client import FleetClient
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from tests.simulators.processes import Process, command, free_port, wait_for
from tests.simulators.tiny_bundle import tiny_bundle

SETTINGS = """\
data_dir = "{data}"
port = {port}
[process]
roles = {roles}
[database]
url = "{url}"
[mqtt]
broker = "external"
port = {mqtt_port}
client_id = "{name}"
shared = true
[windows]
decide_every_seconds = 0.2
[repository]
path = "{repository}"
online_keys = "{keys}/online"
check_every_seconds = 0.2
"""


class Member:
    """One server process."""

    def __init__(self, folder: Path, name: str, roles: list[str], cluster: "Cluster") -> None:
        self.name = name
        self.port = free_port()
        self.data = folder / name
        self.data.mkdir(parents=True)
        settings = folder / f"{name}.toml"
        settings.write_text(
            SETTINGS.format(
                data=self.data,
                port=self.port,
                roles=roles,
                url=cluster.url,
                mqtt_port=cluster.mqtt_port,
                name=name,
                repository=cluster.repository,
                keys=cluster.keys,
            )
        )
        self.process = Process(
            [*command("serinus-server"), "run", "--config", str(settings)], folder / f"{name}.log"
        )

    def start(self) -> None:
        """Start it, and wait until it says so."""
        seen = self.process.text().count("Serinus fleet server")
        self.process.start()

        def greeted() -> bool:
            if not self.process.running:
                raise RuntimeError(self.process.text()[-2000:])
            return self.process.text().count("Serinus fleet server") > seen

        wait_for(greeted, seconds=30, what=f"{self.name} to start")


class Cluster:
    """A broker, a repository, and members that a test starts, kills and stops."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.mqtt_port = free_port()
        self.folder = folder
        self.repository = folder / "repository"
        self.keys = folder / "keys"
        publishing.init_repository(self.repository, self.keys, datetime.now(UTC))
        signing.generate_key(self.keys)
        self._broker = Broker(MqttConfig(port=self.mqtt_port), folder)
        self.members: dict[str, Member] = {}
        self._client: FleetClient | None = None

    def __enter__(self) -> Self:
        self._broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._broker.stop)
            for member in self.members.values():
                stack.callback(member.process.__exit__)
            if self._client is not None:
                stack.callback(self._client.close)

    def add(self, name: str, *roles: str) -> Member:
        """Start one more."""
        member = self.members[name] = Member(self.folder, name, list(roles), self)
        member.start()
        return member

    def client(self, member: Member) -> FleetClient:
        """An operator's client of a member that answers."""
        if self._client is None:
            token = (member.data / "operator.token").read_text().strip()
            self._client = FleetClient(f"http://127.0.0.1:{member.port}", token)
            wait_for(self._answers, seconds=20, what=f"{member.name} to answer")
        return self._client

    def _answers(self) -> bool:
        assert self._client is not None
        try:
            self._client.fleet()
        except SerinusError:
            return False
        return True

    def publish(self, version: str, client: FleetClient, seed: int = 0) -> ReleaseRef:
        """Build, sign and approve a tiny bundle; wait until the fleet knows it."""
        bundle = tiny_bundle(
            self.folder / "bundles" / version,
            version=version,
            seed=seed,
            sign_with=self.keys / "statement.pem",
        )
        ref = publishing.publish(bundle, self.repository, self.keys, datetime.now(UTC))
        wait_for(
            lambda: any(row["digest"] == ref.digest for row in client.releases()),
            seconds=20,
            what=f"the fleet to know {version}",
        )
        return ref
