"""Who says that it uses a model's answers, and which breaks it has agreed to."""

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

declared_consumers = Table(
    "declared_consumers",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("consumer", String(256), primary_key=True),
    Column("owner", String(256), nullable=False),
    Column("note", Text, nullable=False),
    Column("declared_ms", BigInteger, nullable=False),
    Column("declared_by", String(64), nullable=False),
)

acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("consumer", String(256), primary_key=True),
    Column("major", Integer, primary_key=True),
    Column("note", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
)
"""``major`` is the version whose answers the consumer reads rightly."""
