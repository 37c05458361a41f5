"""Requests to train a model again, and when such requests are made by themselves."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

retrain_requests = Table(
    "retrain_requests",
    metadata,
    Column("request", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("alert", Integer),
    Column("automation", String(16), nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    Column("asked_by", String(64), nullable=False),
    Column("incumbent", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("worker", String(64)),
    Column("lease", String(64)),
    Column("leased_until_ms", BigInteger),
    Column("progress", Text, nullable=False),
    Column("finished_ms", BigInteger),
    Column("outcome", Text, nullable=False),
    Column("release", String(128)),
    Column("digest", String(64)),
    Column("gates", sa.JSON, nullable=False),
    Column("rollout", String(32)),
    sa.Index("retraining_of_model", "model", "state"),
)
"""``lease`` is what its worker has to name; ``gates`` are those that did not pass."""

retrain_policies = Table(
    "retrain_policies",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("every_days", Float),
    Column("on_drift", Boolean, nullable=False),
    Column("cooldown_days", Float, nullable=False),
    Column("automation", String(16), nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)
