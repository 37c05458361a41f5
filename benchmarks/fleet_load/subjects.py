"""The servers that are measured: one process on SQLite, or ingest and API apart on PostgreSQL."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from edge_core.release import ReleaseRef
from fleet_server.storage.database import Database
from tests.simulators import postgres
from tests.simulators.cluster import Cluster
from tests.simulators.server import FleetServer


class Subject(Protocol):
    """What a measurement needs to know of a server."""

    url: str
    """Of the API."""
    token: str
    mqtt_port: int
    ingest: int
    """Process id of who takes windows."""

    def publish(self, version: str) -> ReleaseRef:
        """Approve a release."""
        ...

    def database(self) -> contextlib.AbstractContextManager[Database]:
        """The server's database, read from here."""
        ...

    def rows(self, query: str) -> list[Any]:
        """Rows of that database."""
        ...


class OneProcess:
    """Everything in one process, on SQLite."""

    def __init__(self, server: FleetServer) -> None:
        self._server = server
        self.url, self.mqtt_port = server.url, server.mqtt_port
        self.token = (server.data / "operator.token").read_text().strip()
        self.ingest = server.process.pid

    def publish(self, version: str) -> ReleaseRef:
        """Approve a release."""
        return self._server.publish(version)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """The server's database, read from here."""
        database = Database.at(None, self._server.data / "serinus.sqlite", migrate=False)
        try:
            yield database
        finally:
            database.close()

    def rows(self, query: str) -> list[Any]:
        """Rows of that database."""
        return self._server.rows(query)


class Apart:
    """One process takes windows and decides, one answers people, on PostgreSQL."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._api = cluster.add("api", "api")
        self._client = cluster.client(self._api)
        self.url, self.mqtt_port = f"http://127.0.0.1:{self._api.port}", cluster.mqtt_port
        self.token = (self._api.data / "operator.token").read_text().strip()
        self.ingest = cluster.add("ingest", "ingest", "decide").process.pid
        self._engine = sa.create_engine(cluster.url)

    def publish(self, version: str) -> ReleaseRef:
        """Approve a release."""
        return self._cluster.publish(version, self._client)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """The servers' database, read from here."""
        database = Database.at(self._cluster.url, Path(), migrate=False)
        try:
            yield database
        finally:
            database.close()

    def rows(self, query: str) -> list[Any]:
        """Rows of that database."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]


@contextlib.contextmanager
def started(folder: Path, database: str, *, decide: float = 2.0) -> Iterator[Subject]:
    """Servers on ``sqlite`` or ``postgresql``, as long as the context lasts."""
    if database == "sqlite":
        with FleetServer(folder, decide=decide, drift=10.0) as server:
            yield OneProcess(server)
        return
    folder.mkdir(parents=True)
    with postgres.running() as running, Cluster(folder, running.new_database()) as cluster:
        yield Apart(cluster)
