"""Tables that may only grow: the database itself refuses to change or delete their rows."""

import sqlalchemy as sa

from fleet_server.storage.tables import audit

TABLES = (audit.name,)
REFUSAL = "entries of this table are never changed"


def guard(connection: sa.Connection) -> None:
    """Make the triggers, unless they are there; whoever may drop them may do anything."""
    make = _postgresql if connection.dialect.name == "postgresql" else _sqlite
    for table in TABLES:
        for statement in make(table):
            connection.exec_driver_sql(statement)


def _sqlite(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{event} BEFORE {event} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        for event in ("update", "delete")
    ]


def _postgresql(table: str) -> list[str]:
    return [
        f"CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    ]
