"""Events, alerts and what was not taken in."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

alerts = Table(
    "alerts",
    metadata,
    Column("alert", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("title", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
    sa.Index("open_alerts", "kind", "subject", "closed_ms"),
)

events = Table(
    "events",
    metadata,
    Column("event", Integer, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

rejected = Table(
    "rejected",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("reason", String(128), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Messages that were not taken in, counted by reason; ``detail`` is the latest one's."""
