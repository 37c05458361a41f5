"""What the broker beside the server is told, as files: settings and access rules."""

import os
import pwd
from pathlib import Path

import msgspec

from edge_core import durable
from edge_core.messages import topics
from edge_core.messages.codec import MAX_MESSAGE_BYTES
from fleet_server.authority.device_ca import OWNER
from fleet_server.config import MqttConfig

MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 4096
CRL = "crl.pem"

MOSQUITTO = """\
# Written at every start of the server; edits are lost.
listener {port} {host}
{access}user {user}
persistence true
persistence_location {folder}/
autosave_interval 60
max_packet_size {max_packet}
max_inflight_messages 2000
max_queued_messages 200000
max_keepalive 600
log_dest file {folder}/mosquitto.log
log_type error
log_type warning
"""

ANYBODY = "allow_anonymous true\n"
"""On loopback."""

CERTIFIED = """\
allow_anonymous false
tls_version tlsv1.2
cafile {ca_file}
certfile {certificate}
keyfile {key}
crlfile {folder}/{crl}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
acl_file {folder}/acl
"""

ACL = """\
# Written at every start of the server; edits are lost.
user {owner}
topic read {prefix}/up/#
topic write {prefix}/down/#

pattern write {prefix}/up/%u/#
pattern read {prefix}/down/%u/#
"""

EMBEDDED = """\
# Written at every start of the server; edits are lost.
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 4
[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_packet}
max_inflight_count = 200
dynamic_filters = true
"""


class BrokerTls(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker that knows its clients by certificates needs."""

    ca_file: Path
    """Whose certificates clients have."""
    certificate: Path
    """The broker's own, with its chain."""
    key: Path


def write_mosquitto(folder: Path, config: MqttConfig, tls: BrokerTls | None) -> Path:
    """Write mosquitto's settings; returns their file."""
    access = ANYBODY
    if tls is not None:
        access = CERTIFIED.format(
            ca_file=tls.ca_file.absolute(),
            certificate=tls.certificate.absolute(),
            key=tls.key.absolute(),
            folder=folder,
            crl=CRL,
        )
        acl = ACL.format(owner=OWNER, prefix=topics.PREFIX)
        durable.write_bytes(folder / "acl", acl.encode(), mode=0o600)
    text = MOSQUITTO.format(
        port=config.port,
        host="127.0.0.1" if tls is None else config.host,
        access=access,
        user=pwd.getpwuid(os.geteuid()).pw_name,  # else it drops to one that cannot write here
        folder=folder,
        max_packet=MAX_PACKET_BYTES,
    )
    path = folder / "mosquitto.conf"
    durable.write_bytes(path, text.encode())
    return path


def write_embedded(folder: Path, config: MqttConfig) -> Path:
    """Write the embedded broker's settings, on loopback in any case; returns their file."""
    path = folder / "embedded.toml"
    text = EMBEDDED.format(port=config.port, max_packet=MAX_PACKET_BYTES)
    durable.write_bytes(path, text.encode())
    return path
