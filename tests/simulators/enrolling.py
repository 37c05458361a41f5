"""Devices that ask for certificates: keys, requests, statements; honest ones and others."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from edge_core.messages.enrolment import (
    Enrolled,
    EnrolRequest,
    Holder,
    RenewRequest,
    enrol_statement,
    renew_statement,
)


class Applicant:
    """A device with a key of its own, and perhaps another that vouches for it."""

    def __init__(self, device: str, *, hardware: bool = False) -> None:
        self.device = device
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.holder = ec.generate_private_key(ec.SECP256R1()) if hardware else None

    def request(self, key: Any = None, name: str | None = None, **options: Any) -> str:
        """A request for a certificate (PEM); ``options``: see :func:`csr`."""
        return csr(self.key if key is None else key, name or self.device, **options)

    def enrolment(self, token: str, request: str | None = None) -> EnrolRequest:
        """What it sends to be enrolled."""
        request = request or self.request()
        holder = None
        if self.holder is not None:
            statement = enrol_statement(self.device, der(request))
            holder = Holder(key=public(self.holder), signature=signed(self.holder, statement))
        return EnrolRequest(token=token, device=self.device, csr=request, holder=holder)

    def renewal(
        self, present: Enrolled, at_ms: int, *, key: Any, signer: Any = None
    ) -> RenewRequest:
        """What it sends to have a certificate renewed for a new key."""
        request = self.request(key)
        statement = renew_statement(present.serial, at_ms, der(request))
        signature = signed(signer or self.holder or self.key, statement)
        return RenewRequest(serial=present.serial, at_ms=at_ms, csr=request, signature=signature)

    def pem(self, enrolled: Enrolled, key: Any = None) -> bytes:
        """Key and certificate in one file."""
        own = (key or self.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return bytes(own) + enrolled.certificate.encode()


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key as devices make it."""
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Any, name: str, *, extension: x509.ExtensionType | None = None, more: str = "") -> str:
    """A request for a certificate (PEM), with an extension or a second name where given."""
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if more:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, more))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    digest = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def der(request: str) -> bytes:
    """The exact bytes that statements are about."""
    return x509.load_pem_x509_csr(request.encode()).public_bytes(Encoding.DER)


def public(key: ec.EllipticCurvePrivateKey) -> str:
    """A key's public half (PEM)."""
    spki = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.PEM, spki).decode()


def signed(key: ec.EllipticCurvePrivateKey, statement: bytes) -> str:
    """A signature in base64."""
    return base64.b64encode(key.sign(statement, ec.ECDSA(hashes.SHA256()))).decode()
