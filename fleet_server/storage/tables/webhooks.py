"""Who is told of events, and what is on its way to them."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", String(128), nullable=False),
    Column("kinds", sa.JSON, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("disabled_ms", BigInteger),
    Column("problem", Text, nullable=False),
)
"""``kinds`` are those of events, or ``page`` for all that a person has to look at now."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery", Integer, primary_key=True, autoincrement=True),
    Column("webhook", String(64), nullable=False),
    Column("message", String(64), nullable=False),
    Column("event", Integer),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("answer", Text, nullable=False),
    sa.Index("deliveries_due", "state", "due_ms"),
    sa.Index("deliveries_of_webhook", "webhook", "delivery"),
)
"""The outbox; ``message`` is the same at every attempt, so that a receiver knows a second one."""
