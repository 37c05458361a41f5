"""What the drift detectors watch and remember."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from fleet_server.storage.tables.metadata import metadata

periods = Table(
    "drift_periods",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("period", BigInteger, primary_key=True),
    Column("slice", String(512), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("right", BigInteger, nullable=False),
    Column("wrong", BigInteger, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    Index("drift_periods_by_number", "period"),
)
"""Channel counts merged over the fleet and one drift period; ``slice`` is as in the hours, and
``counts`` are int64."""

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
    Column("season", LargeBinary),
    Column("period", BigInteger, nullable=False),
)
"""What each release's detector remembers; ``season`` is written once an hour."""

drift_policies = Table(
    "drift_policies",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("fallback", JSON, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)
"""Kinds of drift at which a model's devices let their baseline answer by themselves."""

drift_responses = Table(
    "drift_responses",
    metadata,
    Column("response", Integer, primary_key=True, autoincrement=True),
    Column("alert", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
    Index("responses_to_alert", "alert"),
)
"""What was done about an alert."""
