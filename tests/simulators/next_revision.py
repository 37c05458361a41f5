"""Writes the next revision of the schema: what the tables have and the newest revision has not.

``python -m tests.simulators.next_revision 0003 "What it adds"``; read it before you commit it.
``--again`` replaces the newest revision, as long as no server has run it.
"""

import argparse
import tempfile
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from fleet_server.storage import schema, tables
from fleet_server.storage.engines import Sqlite


def write(revision: str, message: str, *, again: bool = False) -> Path:
    """Compare a database at the newest revision with the tables, and write the difference."""
    versions = schema.FOLDER / "versions"
    if again:
        for old in versions.glob(f"{revision}_*.py"):
            old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        backend = Sqlite(Path(folder) / "fresh.sqlite")
        with backend.engine.connect() as connection:
            backend.begin_write(connection)
            config = schema.settings(connection)
            command.upgrade(config, "head")
            script = command.revision(config, message, autogenerate=True, rev_id=revision)
            connection.commit()
        backend.engine.dispose()
    return Path(script.path)  # type: ignore[union-attr]


def difference(backend: Sqlite) -> list[object]:
    """What the tables have and a database at the newest revision has not."""
    with backend.engine.connect() as connection:
        backend.begin_write(connection)
        command.upgrade(schema.settings(connection), "head")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = list(compare_metadata(context, tables.metadata))
        connection.commit()
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("message")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    print(write(given.revision, given.message, again=given.again))


if __name__ == "__main__":
    main()
