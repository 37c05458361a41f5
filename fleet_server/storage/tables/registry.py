"""What operators say of devices: where they are, what they are for, and groups of them."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

device_facts = Table(
    "device_facts",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("site", String(64), nullable=False, index=True),
    Column("retired", Boolean, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)

device_tags = Table(
    "device_tags",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("tag", String(64), primary_key=True),
    sa.Index("devices_of_tag", "tag", "device"),
)

groups = Table(
    "groups",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("query", Text, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(64), nullable=False),
)
"""Saved queries over devices; who is in one is found whenever it is asked."""
