"""What only a database server can do: go away, come back, and be shared by several processes."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from edge_core.errors import Unavailable
from fleet_server.config import DatabaseConfig
from fleet_server.storage import devices
from fleet_server.storage.database import Database
from fleet_server.storage.engines import backend_of
from tests.simulators.postgres import PostgresServer, running

BROKEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""The driver leaves sockets that the server broke to the garbage collector."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One of our own, since it is killed."""
    with running() as found:
        yield found
    gc.collect()  # sockets that broke are closed now, and not in the midst of another test


@BROKEN
def test_a_server_that_is_killed_is_unavailable_and_used_again_when_it_is_back(
    server: PostgresServer, tmp_path: Path
) -> None:
    database = Database.at(server.new_database(), tmp_path)
    with database.write() as connection:
        devices.seen(connection, "d1", 0, alive=True)
    server.kill()
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be used now"), database.write() as connection:
            devices.seen(connection, "d2", 0, alive=True)
    server.start_again()
    with database.read() as connection:
        assert [device.device for device in devices.every(connection)] == ["d1"]
    database.close()


@BROKEN
def test_a_transaction_that_is_cut_off_leaves_nothing(
    server: PostgresServer, tmp_path: Path
) -> None:
    database = Database.at(server.new_database(), tmp_path)

    def half() -> None:
        with database.write() as connection:
            devices.seen(connection, "d1", 0, alive=True)
            server.kill()
            devices.seen(connection, "d2", 0, alive=True)

    with pytest.raises(Unavailable):
        half()
    server.start_again()
    with database.read() as connection:
        assert devices.every(connection) == []
    database.close()


def test_writers_of_several_processes_stand_in_line(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Each reads, waits, and writes what it read plus one: none may be lost."""
    url = postgres.new_database()
    parts = [Database.at(url, tmp_path) for _ in range(4)]
    with parts[0].write() as connection:
        devices.seen(connection, "d1", 0, alive=True)

    def count(database: Database) -> None:
        for _ in range(10):
            with database.write() as connection:
                found = devices.one(connection, "d1")
                assert found is not None
                devices.change(connection, "d1", last_seen_ms=found.last_seen_ms + 1)

    threads = [threading.Thread(target=count, args=(database,)) for database in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with parts[0].read() as connection:
        found = devices.one(connection, "d1")
        assert found is not None
        assert found.last_seen_ms == 40
    for database in parts:
        database.close()


def test_a_reader_sees_one_state_while_others_write(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = Database.at(postgres.new_database(), tmp_path)
    with database.read() as reader:
        assert devices.every(reader) == []
        with database.write() as writer:
            devices.seen(writer, "d1", 0, alive=True)
        assert devices.every(reader) == []
        with pytest.raises(sa.exc.DatabaseError):
            devices.seen(reader, "d2", 0, alive=True)
    database.close()


def test_a_password_is_never_shown_and_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = "postgresql+pg8000://serinus:secret@127.0.0.1:1/fleet"
    assert "secret" not in backend_of(url, tmp_path).name
    with pytest.raises(Unavailable) as refused:
        Database.at(url, tmp_path)
    assert "127.0.0.1:1/fleet" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_another_kind_of_database_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match="leave it out for SQLite"):
        DatabaseConfig(url="mysql://localhost/fleet")
