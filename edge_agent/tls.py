"""TLS towards the fleet: its authority alone is trusted, whatever else this machine trusts."""

import ssl
from pathlib import Path
from typing import Any, Self

from edge_core.errors import InvalidConfiguration


def trusting(ca_file: Path, own: Path | None = None) -> ssl.SSLContext:
    """A client's context.

    Args:
        ca_file: certificates (PEM) that the server's has to be signed by.
        own: the device's certificate and key (PEM), where it shows one.

    Raises:
        InvalidConfiguration: a file cannot be used.
    """
    context = _empty()
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


def trusting_these(certificates: str, own: Path | None = None) -> ssl.SSLContext:
    """As :func:`trusting`, of certificates (PEM) that were read and checked already.

    Raises:
        InvalidConfiguration: they or the device's own cannot be used.
    """
    context = _empty()
    try:
        context.load_verify_locations(cadata=certificates)
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"cannot trust what the fleet answers: {error}") from error
    if own is not None:
        show(context, own)
    return context


class Followed(ssl.SSLContext):
    """Stands for another context, which may be replaced: trust cannot be taken from one."""

    _present: ssl.SSLContext

    def __new__(cls, first: ssl.SSLContext) -> Self:
        """Stand for one; clients that look at this one see the same checks."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._present = first
        return made

    def follow(self, context: ssl.SSLContext) -> None:
        """Stand for another from the next connection on."""
        self._present = context

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Connect as the present one does."""
        return self._present.wrap_socket(*arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Connect as the present one does, within another connection."""
        return self._present.wrap_bio(*arguments, **options)

    def load_cert_chain(self, *arguments: Any, **options: Any) -> None:
        """Let the present one show a certificate."""
        self._present.load_cert_chain(*arguments, **options)


def _empty() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
