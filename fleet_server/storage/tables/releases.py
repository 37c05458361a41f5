"""Approved releases and what is in production."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table

from fleet_server.storage.tables.metadata import metadata

releases = Table(
    "releases",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("features", LargeBinary, nullable=False),
    Column("reference", LargeBinary, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("listed_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)
"""Approved releases with the exact bytes that were verified."""

production = Table(
    "production",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("rollout", String(32)),
    Column("verdict", Integer),
)

production_history = Table(
    "production_history",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("since_ms", BigInteger, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("until_ms", BigInteger),
    Column("rollout", String(32)),
    Column("verdict", Integer),
)
"""What was ever in production; what is has no end yet."""

runs = Table(
    "runs",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("from_ms", BigInteger, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("to_ms", BigInteger),
    sa.Index("runs_at", "digest", "from_ms", "to_ms"),
)
"""Which release each device reported to run, and from when to when."""
