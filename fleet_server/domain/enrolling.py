"""Who may be enrolled under which name: tokens, names, requests for certificates. Pure.

Certificates are made here of nothing that a device says but its public key; what else a request
asks for is refused, so that nobody believes to have got it.
"""

import hashlib
import re
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from edge_core.messages.enrolment import CLOCK_SKEW_MS, MAX_CSR_BYTES, MAX_KEY_BYTES
from edge_core.messages.topics import DEVICE_PATTERN

PATTERN = re.compile(r"^[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}\Z")
CURVES = (ec.SECP256R1, ec.SECP384R1)
RENEW_AFTER = 1 / 3
"""Share of a certificate's life after which it may be renewed."""

Usable = Literal["yes", "revoked", "expired", "spent"]
Name = Literal["free", "same key", "another key", "key was revoked"]


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a certificate that was checked."""

    key: ec.EllipticCurvePublicKey
    der: bytes
    """The whole request."""


def checked_request(pem: str, device: str) -> Requested:
    """Read a request for a certificate of one device.

    Raises:
        ValueError: what is wrong with it, for a person.
    """
    if len(pem) > MAX_CSR_BYTES:
        raise ValueError(f"a request for a certificate has at most {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        names = [(entry.oid, entry.value) for entry in request.subject]
        plain = not list(request.extensions) and not list(request.attributes)
        proven = request.is_signature_valid
    except (
        ValueError, UnsupportedAlgorithm, TypeError, x509.DuplicateExtension, x509.InvalidVersion,
    ) as error:  # fmt: skip
        raise ValueError("this is no request for a certificate (PKCS#10, PEM)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise ValueError("the key has to be an elliptic curve key, P-256 or P-384")
    if not proven:
        raise ValueError("the request is not signed by the key that it names")
    if names != [(NameOID.COMMON_NAME, device)]:
        raise ValueError(f"the request's subject has to be CN={device} and nothing else")
    if not plain:
        raise ValueError("the request asks for extensions; it may ask for none")
    return Requested(key=key, der=request.public_bytes(Encoding.DER))


def checked_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Read a public key; raise ``ValueError`` with what is wrong."""
    if len(pem) > MAX_KEY_BYTES:
        raise ValueError(f"a public key has at most {MAX_KEY_BYTES} bytes")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("this is no public key (PEM)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise ValueError("the holder's key has to be an elliptic curve key, P-256 or P-384")
    return key


def is_signed(key: ec.EllipticCurvePublicKey, signature: bytes, statement: bytes) -> bool:
    """Whether a key has signed a statement (ECDSA with SHA-256)."""
    try:
        key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """What names a key: sha256 of its SubjectPublicKeyInfo (DER)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def pem_of(key: ec.EllipticCurvePublicKey) -> str:
    """A public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def covers(devices: str, device: str) -> bool:
    """Whether a token's name or pattern allows a device."""
    if not DEVICE_PATTERN.match(device):
        return False
    parts = map(re.escape, devices.split("*"))
    return re.fullmatch("[A-Za-z0-9._-]*".join(parts), device) is not None


def usable(*, revoked_ms: int | None, expires_ms: int, uses_left: int, now_ms: int) -> Usable:
    """Whether a token still enrols anybody."""
    if revoked_ms is not None:
        return "revoked"
    if expires_ms <= now_ms:
        return "expired"
    return "yes" if uses_left > 0 else "spent"


def name_for(holder: str, held: list[tuple[str, bool]]) -> Name:
    """Whose a device's name is.

    Args:
        holder: public key (PEM) that asks for it.
        held: holder's key and whether it was revoked, of each certificate of that name.
    """
    if not held:
        return "free"
    if any(key == holder and revoked for key, revoked in held):
        return "key was revoked"
    return "same key" if any(key == holder for key, _ in held) else "another key"


def is_early(*, not_before_ms: int, not_after_ms: int, now_ms: int) -> bool:
    """Whether a certificate is too young to be renewed."""
    return now_ms < not_before_ms + (not_after_ms - not_before_ms) * RENEW_AFTER


def is_fresh(at_ms: int, now_ms: int) -> bool:
    """Whether a statement was made about now."""
    return abs(at_ms - now_ms) <= CLOCK_SKEW_MS
