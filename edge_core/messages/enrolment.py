"""What a device and the server say when a certificate is made or renewed, and what is signed.

A request for a certificate (PKCS#10, RFC 2986) proves that the device has the key that it names. A
renewal is vouched for by the *holder's* key: the key of the certificate that is still valid, or one
in the device's hardware that was named when it was enrolled.
"""

import hashlib

import msgspec

MAX_CSR_BYTES = 8 * 1024
MAX_KEY_BYTES = 2 * 1024
MAX_SIGNATURE_BYTES = 512
MAX_TOKEN = 256
CLOCK_SKEW_MS = 300_000
"""How far a renewal's time may be from the server's."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A key in hardware that vouches for keys in files."""

    key: str
    """Public key (PEM, SubjectPublicKeyInfo, EC P-256 or P-384)."""
    signature: str
    """Of :func:`enrol_statement`: ECDSA with SHA-256, DER, base64."""


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /enrol."""

    token: str
    device: str
    csr: str
    """PEM."""
    holder: Holder | None = None


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /enrol/renew."""

    serial: str
    """Of the certificate that is still valid; lower-case hex."""
    at_ms: int
    csr: str
    signature: str
    """Of :func:`renew_statement` by the holder's key: ECDSA with SHA-256, DER, base64."""


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was made."""

    device: str
    serial: str
    not_before_ms: int
    not_after_ms: int
    certificate: str
    """PEM."""
    chain: str
    """Certificates of the authorities that are trusted from now on (PEM), that of who signs first:
    it replaces what the device has learnt before."""


def enrol_statement(device: str, csr_der: bytes) -> bytes:
    """What the holder's key signs when a device is enrolled."""
    return f"serinus enrol v1\n{device}\n{hashlib.sha256(csr_der).hexdigest()}\n".encode()


def renew_statement(serial: str, at_ms: int, csr_der: bytes) -> bytes:
    """What the holder's key signs to have a certificate renewed."""
    digest = hashlib.sha256(csr_der).hexdigest()
    return f"serinus renew v1\n{serial}\n{at_ms}\n{digest}\n".encode()
