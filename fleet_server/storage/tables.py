"""Every table. Times are milliseconds since 1970, UTC."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table, Text

metadata = sa.MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("target", String(64)),
    Column("runtime", Text, nullable=False, default=""),
    Column("slices", sa.JSON, nullable=False, default=dict),
    Column("online", Boolean, nullable=False, default=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("active", String(64)),
    Column("active_since_ms", BigInteger),
    Column("shadow", String(64)),
    Column("update_state", String(16)),
    Column("reason", Text, nullable=False, default=""),
    Column("desired_revision", BigInteger, nullable=False, default=0),
    Column("reported", LargeBinary),
)
"""What each device said last; ``reported`` is its ReportedState as JSON."""

desired = Table(
    "desired",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("active", String(64)),
    Column("shadow", String(64)),
    Column("arm", String(16), nullable=False),
    Column("rollout", String(32)),
    Column("sent_ms", BigInteger),
    Column("confirmed_sent", Boolean, nullable=False, default=False),
)
"""What each device should run; ``confirmed_sent`` once the broker holds it."""

confirmations = Table(
    "confirmations",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""The desired state of each device whose trial the server confirmed last."""

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

windows = Table(
    "windows",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("received_ms", BigInteger, nullable=False, index=True),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    Column("arm", String(16), nullable=False),
    Column("rollout", String(32)),
    Column("slices", sa.JSON, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
    Column("right", BigInteger, nullable=False),
    Column("wrong", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Windows as they came; ``body`` is the whole message, empty once it is old."""

epochs = Table(
    "epochs",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False),
)
"""How many of the sequence numbers first..last arrived: the rest is lost or still under way."""

totals = Table(
    "totals",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("rows", BigInteger, nullable=False, default=0),
    Column("errors", BigInteger, nullable=False, default=0),
    Column("right", BigInteger, nullable=False, default=0),
    Column("wrong", BigInteger, nullable=False, default=0),
    Column("paired", BigInteger, nullable=False, default=0),
    Column("paired_labelled", BigInteger, nullable=False, default=0),
)
"""Running sums of each device; a label count can never pass its row count."""

cells = Table(
    "cells",
    metadata,
    Column("rollout", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("slice", String(512), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("right", BigInteger, nullable=False),
    Column("wrong", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
    Column("agree", BigInteger, nullable=False),
    Column("disagree", BigInteger, nullable=False),
    Column("both_right", BigInteger, nullable=False),
    Column("only_active_right", BigInteger, nullable=False),
    Column("only_shadow_right", BigInteger, nullable=False),
    Column("both_wrong", BigInteger, nullable=False),
)
"""Evidence of one rollout stage, merged as windows arrive. Rollout ``""``, stage -1: outside."""

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

drift = Table(
    "drift",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("period", BigInteger, nullable=False),
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

alerts = Table(
    "alerts",
    metadata,
    Column("alert", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("title", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
    sa.Index("open_alerts", "kind", "subject", "closed_ms"),
)

events = Table(
    "events",
    metadata,
    Column("event", Integer, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

rejected = Table(
    "rejected",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("reason", String(128), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Messages that were not taken in, counted by reason; ``detail`` is the latest one's."""

refusals = Table(
    "refusals",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

parity = Table(
    "parity",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("compared", BigInteger, nullable=False),
    Column("mismatches", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

parity_features = Table(
    "parity_features",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("feature", String(128), primary_key=True),
    Column("mismatches", BigInteger, nullable=False),
)
"""Mismatches of each of a release's features, over all devices."""

samples = Table(
    "samples",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("prediction", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
    sa.Index("samples_in_order", "device", "number"),
)
"""The last samples of each device, so that none is compared twice; ``number`` rises."""

tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("token", String(64), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
