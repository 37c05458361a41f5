"""Predictions that labels find by their id, the labels, and what both add up to."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

predictions = Table(
    "predictions",
    metadata,
    Column("prediction", String(64), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    Column("arm", String(16), nullable=False),
    Column("policy", String(16), nullable=False),
    Column("slices", sa.JSON, nullable=False),
    Column("predicted", String(256), nullable=False),
    Column("confidence", Float, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False, index=True),
    Column("told_by", String(64), nullable=False),
    Column("sample", LargeBinary, nullable=False),
    sa.Index("predictions_with_sample", "device", "received_ms"),
)
"""``policy`` says whether the device was held out; ``told_by`` who told of the answer, empty where
the device did; ``sample`` is the device's whole message, empty once it is old."""

labels = Table(
    "labels",
    metadata,
    Column("prediction", String(64), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("label", String(256)),
    Column("known_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("told_by", String(64), nullable=False),
    Column("latest", Boolean, nullable=False),
    Column("joined", Boolean, nullable=False),
    sa.Index("labels_waiting", "joined", "latest", "received_ms"),
)
"""Every label that was ever told; one without a class takes the earlier ones back."""

outcomes = Table(
    "outcomes",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("policy", String(16), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("slice", String(160), primary_key=True),
    Column("label", String(256), primary_key=True),
    Column("predicted", String(256), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Joined predictions by day, label and answer; slice ``""`` holds all of them."""

label_delays = Table(
    "label_delays",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("bin", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""First labels by power of two of the seconds that they came after the answer."""

label_figures = Table(
    "label_figures",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("what", String(16), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""How many labels were joined, corrected, taken back, or never found their prediction."""

appeals = Table(
    "appeals",
    metadata,
    Column("appeal", Integer, primary_key=True, autoincrement=True),
    Column("prediction", String(64), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("claimed", String(256)),
    Column("contact", Text, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("opened_by", String(64), nullable=False),
    Column("decision", Text, nullable=False),
    Column("label", String(256)),
    Column("decided_ms", BigInteger),
    Column("decided_by", String(64)),
    Column("explanation", Text, nullable=False),
    Column("explained_ms", BigInteger),
)
"""Contested predictions; ``explanation`` is JSON, empty until there is one."""
