"""The database's failures as the callers see them."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from edge_core.errors import Unavailable
from fleet_server.storage import devices
from fleet_server.storage.database import Database


def test_a_file_that_breaks_is_unavailable(database: Database) -> None:
    with database.write() as connection:
        devices.seen(connection, "d1", 0, alive=True)
    database.close()
    for name in ("", "-wal", "-shm"):
        Path(f"{database.name}{name}").unlink(missing_ok=True)
    Path(database.name).write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="cannot be used now"), database.read() as connection:
        devices.every(connection)


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.TimeoutError("QueuePool limit reached"),
        sa.exc.OperationalError("", {}, sqlite3.OperationalError("disk I/O error")),
        sa.exc.InternalError("", {}, sqlite3.InternalError("corrupt")),
        sa.exc.ResourceClosedError("this connection is closed"),
    ],
)
def test_what_may_be_over_later_is_unavailable(
    database: Database, error: sa.exc.SQLAlchemyError
) -> None:
    with pytest.raises(Unavailable), database.write():
        raise error


@pytest.mark.parametrize("statement", ["INSERT INTO tokens (hash) VALUES ('x')", "SELECT :name"])
def test_what_is_wrong_with_the_question_is_not(database: Database, statement: str) -> None:
    with pytest.raises(sa.exc.StatementError), database.write() as connection:
        connection.execute(sa.text(statement))
