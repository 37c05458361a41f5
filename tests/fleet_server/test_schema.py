"""Revisions: they lead to the tables as they are, take old data along, and are taken whole."""

import gzip
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from edge_core.errors import InvalidConfiguration
from fleet_server.config import ServerConfig
from fleet_server.services.suite import DATABASE, Services
from fleet_server.storage import journal, releases, rollouts, runs, schema, tables, tokens, windows
from fleet_server.storage.database import Database
from fleet_server.storage.engines import Backend, Sqlite, backend_of
from tests.simulators.next_revision import difference

BACKENDS = ("sqlite", "postgresql")
SAMPLE = Path(__file__).parents[1] / "compat" / "databases" / "schema-1.sqlite.gz"
RELEASE = "18370052d020c4e5d5ded2e7c08c9e245eb3b609b1f9df49dfab92fc5333e990"


@pytest.fixture
def backend(tmp_path: Path, database_url: str | None) -> Iterator[Backend]:
    found = backend_of(database_url, tmp_path / "serinus.sqlite")
    yield found
    found.engine.dispose()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database that a server of the first schema wrote."""
    file = tmp_path / DATABASE
    file.write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    return file


def test_the_revisions_lead_to_the_tables_as_they_are(backend: Backend) -> None:
    """Else: python -m tests.simulators.next_revision"""
    assert difference(backend) == []


def test_a_new_database_is_at_the_newest_revision(backend: Backend) -> None:
    database = Database(backend)
    assert database.migrated_from is None
    with database.read() as connection:
        assert schema.present(connection) == schema.newest()
    database.close()


def test_a_database_of_the_first_schema_keeps_every_row(old: Path) -> None:
    before = rows(old)
    database = Database(old)
    assert database.migrated_from == schema.FIRST
    with database.read() as connection:
        before.pop("periods")  # another detector counts anew, by slice
        before.pop("costs")  # added up by release and target
        for name, count in before.items():
            if name not in ("schema_version", "sqlite_sequence"):
                found = connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one()
                assert (name, found) == (name, count)
        assert tokens.find(connection, "0" * 64) is None
        assert windows.totals_of(connection, "d1", RELEASE, "incumbent").right == 40
        (row,) = rollouts.latest(connection, 10)
        assert (row.rollout, row.state, row.created_by) == ("r1", "running", "ann")
        assert journal.latest_events(connection, 1)[0].event == 18
        (past,) = releases.history(connection)  # begins with what is in production
        assert (past.digest, past.until_ms) == (RELEASE, None)
        assert runs.devices_at(connection, 2**50) == {RELEASE: 6}
    database.close()
    again = Database(old)
    assert again.migrated_from is None
    again.close()


def test_its_verdicts_replay_to_the_same_numbers(old: Path, tmp_path: Path) -> None:
    services = Services.open(ServerConfig(data_dir=str(tmp_path)))
    for number in (1, 2):
        found = services.verdicts.replay(number)
        assert found.same, (found.stored, found.replayed)
    services.database.close()


def test_an_older_server_refuses_what_a_newer_one_has_written(old: Path) -> None:
    """It looks at ``schema_version`` alone, and knows 1."""
    Database(old).close()
    database = Database(old)
    with database.read() as connection:
        query = sa.select(tables.schema_version.c.version)
        assert connection.execute(query).scalars().all() == [schema.GUARD]
    database.close()


def test_a_revision_of_the_future_is_refused_with_what_to_do(backend: Backend) -> None:
    database = Database(backend)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidConfiguration, match="restore a backup"):
        Database(backend)
    database.close()


def test_two_servers_that_start_at_once_make_one_schema(tmp_path: Path, old: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_open, args=(old,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    backend = Sqlite(old)
    assert difference(backend) == []
    backend.engine.dispose()


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05])
def test_a_server_killed_while_it_migrates_leaves_the_old_schema_or_the_new(
    old: Path, after: float
) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_migrate_slowly, args=(old, ready))
    process.start()
    assert ready.wait(60)
    time.sleep(after)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    database = Database(old)
    assert database.migrated_from in (schema.FIRST, None)
    with database.read() as connection:
        context_ = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context_, tables.metadata) == []
        assert windows.totals_of(connection, "d1", RELEASE, "incumbent").right == 40
    database.close()


def rows(file: Path) -> dict[str, int]:
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        found = {
            name: connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in names
        }
    engine.dispose()
    return found


def _open(file: Path) -> None:
    Database(file).close()


def _migrate_slowly(file: Path, ready: object) -> None:
    """Take the lock, tell, and migrate."""
    backend = Sqlite(file)
    with backend.engine.connect() as connection:
        backend.begin_write(connection)
        ready.set()  # type: ignore[attr-defined]
        command.upgrade(schema.settings(connection), "head")
        time.sleep(0.01)
        connection.commit()
