"""Statistics windows and what they add up to."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table

from fleet_server.storage.tables.metadata import metadata

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
    Column("received", LargeBinary),
)
"""How many of the sequence numbers first..last arrived: the rest is lost or still under way.
``received`` says which (domain/received.py); none in rows of earlier servers, whose windows say."""

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
    Column("scored", BigInteger, nullable=False, server_default="0"),
    Column("unusual", BigInteger, nullable=False, server_default="0"),
)
"""Evidence of one rollout stage, merged as windows arrive. Rollout ``""``, stage -1: outside."""
