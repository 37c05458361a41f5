"""What devices say of themselves and what is wanted of them."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

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
    Column("trouble", Text, nullable=False, server_default=""),
    Column("reported", LargeBinary),
    sa.Index("devices_in_state", "update_state", "device"),
)
"""What each device said last; ``reported`` is its ReportedState as JSON, ``trouble`` the first of
what stands wrong with the device itself."""

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
    Column("attempts", Integer, nullable=False, server_default="1"),
    sa.Index("desired_unsent", "confirmed_sent", "sent_ms"),
)
"""What each device should run; ``confirmed_sent`` once the broker holds it; ``attempts`` counts how
often the same was asked."""

commands = Table(
    "commands",
    metadata,
    Column("command", String(64), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("model", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("until_ms", BigInteger),
    Column("issued_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("issued_by", String(64), nullable=False),
    Column("sent_ms", BigInteger),
    Column("outcome", String(16)),
    Column("detail", Text, nullable=False, default=""),
    Column("outcome_ms", BigInteger),
    sa.Index("commands_of_device", "device", "issued_ms"),
    sa.Index("commands_unanswered", "outcome", "expires_ms"),
)
"""What operators ordered of devices; ``outcome`` is what the device made of it."""

confirmations = Table(
    "confirmations",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""The desired state of each device whose trial the server confirmed last."""

refusals = Table(
    "refusals",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
