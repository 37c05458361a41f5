"""Which process decides."""

from sqlalchemy import BigInteger, Column, Integer, String, Table

from fleet_server.storage.tables.metadata import metadata

leadership = Table(
    "leadership",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", String(128), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("renewed_ms", BigInteger, nullable=False),
)
"""One row. ``epoch`` rises whenever another process takes over; what an earlier one still wants to
write is refused."""
