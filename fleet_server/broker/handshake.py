"""Whether a broker lets a certificate in: a TLS and an MQTT handshake, and nothing after them.

TLS 1.3 lets a client believe that it is in before its certificate was looked at (RFC 8446, section
4.4.2.4), so only the broker's CONNACK (MQTT 3.1.1, section 3.2) says so.
"""

import socket
import ssl
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge_core.errors import InvalidConfiguration

SECONDS = 5.0
CONNACK = b"\x20\x02"
DISCONNECT = b"\xe0\x00"
ACCEPTED = 0
NOT_ABOUT_US = ("HANDSHAKE_FAILURE", "INTERNAL_ERROR")
"""Alerts of a server that cannot serve anybody, one whose key does not fit for example."""

Answer = Literal["in", "refused", "away"]


def knock(
    host: str, port: int, context: ssl.SSLContext, client_id: str, *, clean: bool = True
) -> Answer:
    """Connect and go away again. Who is connected under the same name is thrown off by it.

    Args:
        host: where the broker is.
        port: its port.
        context: with the certificate to be shown.
        client_id: which the broker may replace by the certificate's name.
        clean: whether the broker forgets what it keeps for that name.

    Returns:
        ``away`` where no answer came that says either, or another server answered.
    """
    try:
        plain = socket.create_connection((host, port), timeout=SECONDS)
    except OSError:
        return "away"
    try:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            secure.sendall(_connect(client_id, clean=clean))
            head = secure.recv(4)
            if len(head) == 4 and head[:2] == CONNACK and head[3] == ACCEPTED:
                secure.sendall(DISCONNECT)
                return "in"
            return "refused"
    except (TimeoutError, ssl.SSLCertVerificationError):
        return "away"
    except (OSError, EOFError) as error:
        reason = getattr(error, "reason", None) or ""
        return "away" if reason.endswith(NOT_ABOUT_US) else "refused"
    finally:
        plain.close()


def pinned(server_certificate: Path, own: Path) -> ssl.SSLContext:
    """TLS with one server alone, by its very certificate, whatever names it has.

    Raises:
        InvalidConfiguration: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    pin(context, server_certificate, own)
    return context


def pin(context: ssl.SSLContext, server_certificate: Path, own: Path) -> None:
    """Let a pinned context know the server by another certificate as well, and show another.

    Raises:
        InvalidConfiguration: a file cannot be used.
    """
    try:
        leaf = x509.load_pem_x509_certificate(server_certificate.read_bytes())
        context.load_verify_locations(cadata=leaf.public_bytes(Encoding.PEM).decode())
        context.load_cert_chain(own)
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(
            f"cannot use the certificates {server_certificate} and {own}: {error}"
        ) from error


def check_pair(certificate: Path, key: Path) -> None:
    """See that a server could be one with these files.

    Raises:
        InvalidConfiguration: they cannot be read, or do not go together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration(
            f"cannot use {certificate} with the key {key}: {error}"
        ) from error


def trusting(ca_file: Path, own: Path | None) -> ssl.SSLContext:
    """TLS with a server that an authority certified, by its name.

    Raises:
        InvalidConfiguration: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if own is not None:
            context.load_cert_chain(own)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot use the certificates {ca_file} and {own}: {error}"
        ) from error
    return context


def _connect(client_id: str, *, clean: bool) -> bytes:
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04" + bytes([2 if clean else 0]) + (10).to_bytes(2, "big")
    body += len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body
