"""The schema's versions: made, brought up to date, refused. Revisions lie in ``migrations``.

A new database is made from the tables as they are now, and marked with the newest revision; that
the revisions lead to the same schema is what tests prove.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from edge_core.errors import InvalidConfiguration
from fleet_server.storage import append_only, tables

FOLDER = Path(__file__).with_name("migrations")
FIRST = "0001"
BEFORE = 1
"""What ``schema_version`` held then."""
"""Revision of databases that were made before there were revisions."""
GUARD = 2
"""What ``schema_version`` holds, so that a server from before there were revisions refuses."""


def settings(connection: sa.Connection | None = None) -> Config:
    """What alembic has to know; its commands use the connection that is given."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    return config


def newest() -> str:
    """The newest revision that this server knows."""
    head = ScriptDirectory.from_config(settings()).get_current_head()
    assert head is not None
    return head


def present(connection: sa.Connection) -> str | None:
    """Revision of a database; none where there is no table of ours yet."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None:
        return found
    if not sa.inspect(connection).has_table(tables.schema_version.name):
        return None
    version = connection.execute(sa.select(tables.schema_version.c.version)).scalar()
    return FIRST if version in (None, BEFORE) else f"version {version}"


def bring_up(connection: sa.Connection) -> str | None:
    """Make the schema, or bring it up to date, within a writing transaction.

    Returns:
        The revision that it was at; none where it was made now, or was the newest already.

    Raises:
        InvalidConfiguration: it has a revision that this server does not know.
    """
    found, head = present(connection), newest()
    if found is None:
        tables.metadata.create_all(connection)
        connection.execute(tables.schema_version.insert().values(version=GUARD))
        append_only.guard(connection)
        command.stamp(settings(connection), head)
        return None
    if found == head:
        return None
    if found not in known():
        raise InvalidConfiguration(
            f"the database has schema {found[:32]}; this server knows revisions up to {head}: run "
            "the server version that wrote it, or restore a backup"
        )
    command.upgrade(settings(connection), head)
    connection.execute(tables.schema_version.update().values(version=GUARD))
    append_only.guard(connection)
    if found == FIRST:
        _begin_history(connection)
    return found


def _begin_history(connection: sa.Connection) -> None:
    """What is in production begins the history that first servers did not keep."""
    rows = [dict(row) for row in connection.execute(sa.select(tables.production)).mappings()]
    if rows:
        connection.execute(tables.production_history.insert(), rows)
    d = tables.devices.c
    query = sa.select(d.device, d.active, d.active_since_ms).where(d.active.is_not(None))
    found = [
        {"device": row.device, "digest": row.active, "from_ms": row.active_since_ms or 0}
        for row in connection.execute(query)
    ]
    if found:
        connection.execute(tables.runs.insert(), found)


def make(connection: sa.Connection, revision: str) -> None:
    """Make the schema of a known revision in an empty database, within a writing transaction."""
    command.upgrade(settings(connection), revision)
    connection.execute(tables.schema_version.delete())
    connection.execute(tables.schema_version.insert().values(version=GUARD))
    if sa.inspect(connection).has_table(tables.audit.name):
        append_only.guard(connection)


def known() -> list[str]:
    """Every revision, oldest first."""
    walked = ScriptDirectory.from_config(settings()).walk_revisions()
    return [script.revision for script in walked][::-1]
