"""Which devices may ask for certificates, and which certificates were made."""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text

from fleet_server.storage.tables.metadata import metadata

enrol_tokens = Table(
    "enrol_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("devices", String(64), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("reenrol", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)
"""``devices`` is a name, or a pattern with ``*``; ``reenrol``: a name may go to another key."""

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("holder", Text, nullable=False),
    Column("hardware", Boolean, nullable=False),
    Column("token", String(64), nullable=False),
    Column("pem", Text, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_before_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("revoked_by", String(64)),
    Column("reason", Text, nullable=False),
    sa.Index("certificates_of_device", "device", "issued_ms"),
    sa.Index("certificates_revoked", "revoked_ms", "not_after_ms"),
    sa.Index("certificates_of_key", "key"),
)
"""``key`` is the sha256 of the certified key, ``holder`` the public key (PEM) that may renew it;
``token`` is the enrolment token's hash, also of certificates that were renewed since."""
