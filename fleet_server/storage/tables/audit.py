"""Who decided what: a chain in which no entry can be changed, left out or put in unnoticed."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

audit = Table(
    "audit",
    metadata,
    Column("entry", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    sa.Index("audit_of_subject", "subject", "entry"),
)
"""``detail`` is canonical JSON; ``hash`` is the sha256 of the entry, ``previous`` included."""
