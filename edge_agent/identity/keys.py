"""Keys that are made on the device and lie in its state folder: the only private-key code here."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge_core.errors import InvalidConfiguration


class FileKey:
    """An EC P-256 key whose PEM text is kept by the caller."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> "FileKey":
        """Make a new one."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, pem: bytes) -> "FileKey":
        """Read one; certificates beside it do not matter.

        Raises:
            InvalidConfiguration: there is no such key in it.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidConfiguration(f"this is no private key (PEM): {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidConfiguration("this is no elliptic curve key")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """PKCS#8, not encrypted: only the agent's user may read its file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public_pem(self) -> str:
        """The public half."""
        spki = PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(Encoding.PEM, spki).decode()

    def request(self, device: str) -> tuple[str, bytes]:
        """A request for a certificate of this key: PEM, and the exact bytes (DER)."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        request = builder.sign(self._key, hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode(), request.public_bytes(Encoding.DER)

    def sign(self, statement: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self._key.sign(statement, ec.ECDSA(hashes.SHA256()))
