"""Parts that the server's tests share: a repository with a true bundle, services over it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from converters import publishing, signing
from edge_core.release import ReleaseRef
from fleet_server.config import DatabaseConfig, ServerConfig
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.storage.database import Database
from tests.simulators.postgres import PostgresServer, running
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import tiny_bundle


class Clock:
    """Milliseconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


class Repository:
    """A release repository in ``folder/repository`` with its keys beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.keys = folder / "keys"
        self.bundles = folder / "bundles"
        publishing.init_repository(self.folder, self.keys, datetime.now(UTC))
        signing.generate_key(self.keys)
        (folder / "online").symlink_to(self.keys / "online")

    def publish(
        self, version: str, seed: int = 0, build: Callable[..., Path] = tiny_bundle
    ) -> ReleaseRef:
        """Build, sign and approve a tiny bundle."""
        bundle = build(
            self.bundles / build.__name__ / version,
            version=version,
            seed=seed,
            sign_with=self.keys / "statement.pem",
        )
        return publishing.publish(bundle, self.folder, self.keys, datetime.now(UTC))

    def revoke(self, ref: ReleaseRef) -> None:
        """Take a release off the list."""
        publishing.revoke(ref.name, self.folder, self.keys, datetime.now(UTC))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def config(tmp_path: Path, database_url: str | None) -> ServerConfig:
    return ServerConfig(data_dir=str(tmp_path), database=DatabaseConfig(url=database_url))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that names ``BACKENDS`` on each of them."""
    backends = getattr(metafunc.module, "BACKENDS", None)
    if backends and "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", backends, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where tests keep their data: a SQLite file, or PostgreSQL where a module asks for it."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = Database.at(database_url, tmp_path / "serinus.sqlite")
    yield found
    found.close()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock)


@pytest.fixture
def watch(config: ServerConfig, catalog: Catalog) -> RepositoryWatch:
    return RepositoryWatch(config, catalog)


@pytest.fixture
def fleet(config: ServerConfig, clock: Clock) -> Iterator[SpokenFleet]:
    with SpokenFleet(config, clock) as found:
        yield found
