"""Requests that carry a key, so that who asks again does not order twice."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table

from fleet_server.storage.tables.metadata import metadata

idempotency = Table(
    "idempotency",
    metadata,
    Column("identity", String(64), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("begun_ms", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("status", Integer),
    Column("content_type", String(128), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("idempotency_by_age", "begun_ms"),
)
"""``identity`` is a digest of token and key, ``request`` one of method, path and body. ``done`` is
set in the transaction that does what was asked; ``status`` follows with the answer."""
