"""What answers took, what that costs, and who asked for them."""

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table

from fleet_server.storage.tables.metadata import metadata

costs = Table(
    "costs",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("fallbacks", BigInteger, nullable=False),
    Column("shadowed", BigInteger, nullable=False),
    Column("cpu_us", BigInteger, nullable=False),
    Column("shadow_cpu_us", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("span_ms", BigInteger, nullable=False),
    Column("labels", BigInteger, nullable=False),
)
"""What a release's answers took on each target, by day from 1970-01-01 UTC; its time as a shadow
apart. Day 0 holds what was counted before days were kept."""

prices = Table(
    "prices",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("device_second", Float),
    Column("megabyte", Float),
    Column("label", Float),
    Column("currency", String(8), nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)
"""What one of each costs from a day on."""

budgets = Table(
    "budgets",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("span", String(16), primary_key=True),
    Column("amount", Float, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)
"""What a model may cost in a day, in a month, or for a thousand predictions."""

consumers = Table(
    "consumers",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("consumer", String(64), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)
"""Who asked a model's releases, over the whole fleet."""
