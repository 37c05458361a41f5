"""TLS towards the fleet: its authority alone is trusted, whatever else this machine trusts."""

import ssl
from pathlib import Path

from edge_core.errors import InvalidConfiguration


def trusting(ca_file: Path, own: Path | None = None) -> ssl.SSLContext:
    """A client's context.

    Args:
        ca_file: certificates (PEM) that the server's has to be signed by.
        own: the device's certificate and key (PEM), where it shows one.

    Raises:
        InvalidConfiguration: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration(
            f"cannot use ca_file {ca_file}: {error.strerror or error}; give the fleet's "
            "certificate, as 'serinus certificate authority' prints it"
        ) from error
    if own is not None:
        show(context, own)
    return context


def show(context: ssl.SSLContext, own: Path) -> None:
    """Let new connections show this certificate.

    Raises:
        InvalidConfiguration: it cannot be used.
    """
    try:
        context.load_cert_chain(own)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration(f"cannot use the certificate {own}: {error}") from error
