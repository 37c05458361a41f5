"""Incidents and what happened in them."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

incidents = Table(
    "incidents",
    metadata,
    Column("incident", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("model", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("title", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("mitigated_ms", BigInteger),
    Column("resolved_ms", BigInteger),
    Column("resolved_by", String(64)),
    Column("owner", String(64)),
    Column("cause", Text, nullable=False),
    sa.Index("incidents_of_cause", "kind", "subject", "state"),
)
"""``began_ms`` is when what it is about began, as far as is known; it was opened later."""

incident_entries = Table(
    "incident_entries",
    metadata,
    Column("incident", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("source", String(16), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
)
"""A timeline; ``source`` is ``event``, ``alert`` or the name of the person who wrote a note."""

cursors = Table(
    "cursors",
    metadata,
    Column("reader", String(32), primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""Up to which event each reader of the journal has come."""
