"""Sampled predictions that are computed again."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

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

unreplayed = Table(
    "unreplayed",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("samples", BigInteger, nullable=False),
)
"""Samples that hold back what would be needed to compute them again."""

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
