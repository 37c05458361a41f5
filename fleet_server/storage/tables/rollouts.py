"""Rollouts, their stages, assignments and verdicts."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("incumbent", String(64)),
    Column("plan", LargeBinary, nullable=False),
    Column("salt", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stage_started_ms", BigInteger, nullable=False),
    Column("deadline_from_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("finished_ms", BigInteger),
    Column("reason", Text, nullable=False, default=""),
    Column("latest", LargeBinary),
    Column("latest_ms", BigInteger),
    Column("decided_by", Integer),
)
"""``latest`` is the newest verdict as JSON; ``decided_by`` the one that set the state."""

stages = Table(
    "stages",
    metadata,
    Column("rollout", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("outcome", String(16)),
    Column("verdict", Integer),
)

assignments = Table(
    "assignments",
    metadata,
    Column("rollout", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("verdict", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(32), nullable=False, index=True),
    Column("stage", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Column("result", LargeBinary, nullable=False),
)
"""``inputs`` (compressed JSON) give ``result`` (JSON) again whenever they are judged."""

approvals = Table(
    "approvals",
    metadata,
    Column("rollout", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("person", String(64), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)
"""Who approved that a stage begins; the stage after the last one is the whole fleet."""
