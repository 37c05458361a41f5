"""Who may call: tokens and sessions."""

from sqlalchemy import JSON, BigInteger, Column, String, Table

from fleet_server.storage.tables.metadata import metadata

tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("models", JSON, nullable=False, server_default="[]"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("token", String(64), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
