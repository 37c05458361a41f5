"""What the drift detectors watch and remember."""

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table

from fleet_server.storage.tables.metadata import metadata

periods = Table(
    "periods",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("period", BigInteger, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("counts", LargeBinary, nullable=False),
)
"""Channel counts merged over the fleet and one drift period; ``counts`` is int64."""

noises = Table(
    "noises",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("period", BigInteger, primary_key=True),
    Column("windows", BigInteger, nullable=False),
)
"""Windows whose counts carry noise, by drift period: what the detectors allow for."""

drift = Table(
    "drift",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("period", BigInteger, nullable=False),
)
