"""The fleet's certificate authority: its key, and what it signs. Nothing here approves a release.

It certifies devices for TLS clients, and this server's own names for TLS servers; the two cannot
stand in for one another (extended key usage, RFC 5280 section 4.2.1.12).
"""

import fcntl
import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_core import durable
from edge_core.errors import InvalidConfiguration, Unavailable

KEY = "ca.key"
CERTIFICATE = "ca.pem"
SERVER = "server.pem"
"""The server's certificate and its key, for HTTPS and the broker."""
CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
BACKDATED = timedelta(hours=1)
"""Clocks of devices may be so late, or by a tenth of a shorter certificate's life."""
CRL_LIFE = timedelta(days=7)
OWNER = "@server"
"""The server's name towards its broker; no device can have it."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate."""

    serial: str
    """Lower-case hex."""
    not_before_ms: int
    not_after_ms: int
    pem: str


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a revocation list."""

    serial: str
    at_ms: int


class DeviceCa:
    """One folder with the authority's key; made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None

    @property
    def certificate_file(self) -> Path:
        """What devices and brokers trust."""
        return self._folder / CERTIFICATE

    @property
    def server_file(self) -> Path:
        """The server's own certificate, chain and key, where one was made."""
        return self._folder / SERVER

    def certificate(self, now_ms: int) -> str:
        """The authority's certificate (PEM)."""
        return _pem(self._open(now_ms)[0])

    def certify_device(
        self, key: ec.EllipticCurvePublicKey, device: str, *, now_ms: int, life: timedelta
    ) -> Made:
        """Certify a device's key, for TLS clients only.

        Raises:
            InvalidConfiguration: the authority's files cannot be used.
        """
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return _made(self._certified(key, device, usage, now_ms=now_ms, life=life))

    def identity(self, name: str, *, now_ms: int, life: timedelta = CA_LIFE) -> tuple[Made, bytes]:
        """A client's certificate with a new key: for the server itself, or to take over a name.

        Returns:
            The certificate, and key and certificate as PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.certify_device(key.public_key(), name, now_ms=now_ms, life=life)
        return made, _key_pem(key) + made.pem.encode()

    def certify_server(self, names: Sequence[str], *, now_ms: int) -> Path:
        """Make the server's certificate for names and addresses; returns its file.

        Raises:
            InvalidConfiguration: a name is none, or the files cannot be used.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names_of = x509.SubjectAlternativeName([_alternative(name) for name in names])
        certificate = self._certified(
            key.public_key(),
            names[0],
            ExtendedKeyUsageOID.SERVER_AUTH,
            now_ms=now_ms,
            life=SERVER_LIFE,
            names=names_of,
        )
        chain = _pem(certificate) + _pem(self._open(now_ms)[0])
        self._write(SERVER, _key_pem(key) + chain.encode(), private=True)
        return self.server_file

    def revocations(self, revoked: Sequence[Revoked], *, number: int) -> bytes:
        """A signed revocation list (PEM).

        Args:
            revoked: what is revoked.
            number: seconds since 1970, larger with every list; the list is dated an hour before,
                for a list that is not newer than another replaces it nowhere.
        """
        certificate, key = self._open(number * 1000)
        dated = datetime.fromtimestamp(number, UTC) - BACKDATED
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(dated)
            .next_update(dated + CRL_LIFE)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_authority(key), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(entry.serial, 16))
                .revocation_date(_moment(entry.at_ms))
                .build()
            )
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def is_list(self, data: bytes, serials: set[str], *, now_ms: int) -> bool:
        """Whether bytes are a list of this authority that is valid now and names these serials."""
        certificate, key = self._open(now_ms)
        try:
            found = x509.load_pem_x509_crl(data)
            signed = found.is_signature_valid(key.public_key())
        except (ValueError, TypeError):
            return False
        until, now = found.next_update_utc, _moment(now_ms)
        current = found.last_update_utc <= now and until is not None and now < until
        named = {_serial(entry.serial_number) for entry in found}
        return signed and current and found.issuer == certificate.subject and serials <= named

    def _certified(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        usage: x509.ObjectIdentifier,
        *,
        now_ms: int,
        life: timedelta,
        names: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        authority, authority_key = self._open(now_ms)
        now = _moment(now_ms)
        end = min(now + life, authority.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name[:64]))
            .issuer_name(authority.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - min(BACKDATED, life / 10), authority.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_authority(authority_key), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(authority_key, hashes.SHA256())

    def _open(self, now_ms: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The authority's certificate and key; made by whoever needs them first."""
        if self._loaded is None:
            try:
                with self._locked():
                    if not (self._folder / KEY).exists():
                        self._make(now_ms)
                    self._loaded = self._load()
            except OSError as error:
                raise Unavailable(
                    f"cannot use the certificate authority in {self._folder}: {error.strerror}"
                ) from error
        return self._loaded

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time make it, where several share the folder."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make(self, now_ms: int) -> None:
        """Certificate first: one without its key, after a power cut, is replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Serinus device CA {os.urandom(4).hex()}")
        now = _moment(now_ms)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        self._write(CERTIFICATE, _pem(certificate).encode(), private=False)
        self._write(KEY, _key_pem(key), private=True)

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            key = load_pem_private_key((self._folder / KEY).read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((self._folder / CERTIFICATE).read_bytes())
        except (ValueError, TypeError) as error:
            raise InvalidConfiguration(
                f"{self._folder} holds no certificate authority ({error}): restore {KEY} and "
                f"{CERTIFICATE} from a backup"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            key.public_key() != certificate.public_key()
        ):
            raise InvalidConfiguration(
                f"{self._folder / KEY} is not the key of {CERTIFICATE}: restore both of one backup"
            )
        return certificate, key

    def _write(self, name: str, data: bytes, *, private: bool) -> None:
        durable.write_bytes(self._folder / name, data, mode=0o600 if private else 0o644)


def server_end_ms(file: Path) -> int:
    """Until when a server's certificate is valid, in ms since 1970.

    Raises:
        InvalidConfiguration: the file holds none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the server's certificate {file}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InvalidConfiguration(f"{file} holds no certificate (PEM)") from error
    return _ms(certificate.not_valid_after_utc)


def _made(certificate: x509.Certificate) -> Made:
    return Made(
        serial=_serial(certificate.serial_number),
        not_before_ms=_ms(certificate.not_valid_before_utc),
        not_after_ms=_ms(certificate.not_valid_after_utc),
        pem=_pem(certificate),
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise InvalidConfiguration(f"{name!r} is no name of a server: {error}") from error


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _serial(number: int) -> str:
    return f"{number:x}"


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
