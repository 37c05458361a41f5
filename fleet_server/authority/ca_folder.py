"""The folder of the fleet's certificate authority: who signs, who comes next, who retires.

``ca.pem`` holds the certificates that are trusted and has the only word on that. ``ca.key`` says
by its public half which of them signs, ``next.key`` which one is the successor, ``old.key`` which
one retires; a key whose certificate is not in ``ca.pem`` counts for nothing. So each step is made
by one write, and a power cut at any other leaves the folder as it was, or as it is to be.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge_core import durable
from edge_core.errors import InvalidConfiguration, Unavailable

CERTIFICATE = "ca.pem"
"""What devices, operators and brokers trust; that of who signs comes first."""
KEY = "ca.key"
NEXT_KEY = "next.key"
OLD_KEY = "old.key"
SERVER = "server.pem"
"""The server's certificate and its key, for HTTPS and the broker."""
CA_LIFE = timedelta(days=3650)
BACKDATED = timedelta(hours=1)
"""Clocks of devices may be so late."""

State = Literal["signs", "next", "retiring"]
Stamp = tuple[tuple[int, int, int] | None, ...]


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """One authority that is trusted."""

    state: State
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None
    """None where it is lost: then no list of its revocations can be made."""

    @property
    def key_id(self) -> bytes:
        """What its certificates and lists name it by (RFC 5280, section 4.2.1.1)."""
        return key_id(self.certificate)

    def ended(self, now_ms: int) -> bool:
        """Whether its certificate is over, and with it all that it has signed."""
        return self.certificate.not_valid_after_utc.timestamp() * 1000 <= now_ms

    @property
    def made_ms(self) -> int:
        """When it was made, in ms since 1970, down to the second."""
        return round((self.certificate.not_valid_before_utc + BACKDATED).timestamp() * 1000)


class Authorities(msgspec.Struct, frozen=True, kw_only=True):
    """All that are trusted: who signs first, then the successor, then who retires."""

    every: tuple[Authority, ...]

    @property
    def signer(self) -> Authority:
        """Who signs."""
        return self.every[0]

    @property
    def successor(self) -> Authority | None:
        """Who signs after the switch; none where none was prepared."""
        return next((one for one in self.every if one.state == "next"), None)

    @property
    def retiring(self) -> Authority | None:
        """Who signed before the switch and is still trusted."""
        return next((one for one in self.every if one.state == "retiring"), None)

    @property
    def pem(self) -> str:
        """The certificates of all."""
        return "".join(pem(one.certificate) for one in self.every)


class CaFolder:
    """One folder, which several processes may share; its authority is made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._known: tuple[Stamp, Authorities] | None = None

    def read(self, now_ms: int) -> Authorities:
        """The authorities as they are now, also where another process has changed them.

        Raises:
            InvalidConfiguration: the files belong to no authority.
            Unavailable: they cannot be read or made.
        """
        try:
            if self._known is None or self._known[0] != self._stamp():
                with self.locked():
                    if not (self.path / KEY).exists():
                        self._check_new()
                        self._make(now_ms)
                    self._known = self._stamp(), self._load()
        except OSError as error:
            raise Unavailable(
                f"cannot use the certificate authority in {self.path}: {error.strerror}"
            ) from error
        return self._known[1]

    def prepare(self, clock: Callable[[], int]) -> None:
        """Make a successor and let it be trusted; nothing where there is one, or one retires."""
        self.read(clock())
        with self._changing():
            found = self._load()
            if len(found.every) == 1:
                key = ec.generate_private_key(ec.SECP256R1())
                self._write(NEXT_KEY, key_pem(key))
                made = pem(_self_signed(key, clock()))  # as late as can be: see made_ms
                self._write(CERTIFICATE, (found.pem + made).encode())  # it counts from here on

    def switch(self) -> None:
        """Let the successor sign, and who signed before retire; nothing where there is none."""
        with self._changing():
            found = self._load()
            successor, signer = found.successor, found.signer
            if successor is not None and successor.key is not None and signer.key is not None:
                self._write(OLD_KEY, key_pem(signer.key))
                self._write(KEY, key_pem(successor.key))  # it signs from here on
            self._tidy()

    def retire(self) -> None:
        """Trust who retires no more, and remove its key; nothing where nobody does."""
        with self._changing():
            found = self._load()
            kept = [one for one in found.every if one.state != "retiring"]
            if len(kept) != len(found.every):
                text = "".join(pem(one.certificate) for one in kept)
                self._write(CERTIFICATE, text.encode())  # it is trusted no more from here on
            self._tidy()

    def write_server(self, name: str, data: bytes) -> Path:
        """Write the server's own certificate with its key; returns its file."""
        with self._changing():
            self._write(name, data)
        return self.path / name

    def _tidy(self) -> None:
        """Put who signs first, and remove keys that count for nothing."""
        found = self._load()
        if (self.path / CERTIFICATE).read_text() != found.pem:
            self._write(CERTIFICATE, found.pem.encode())
        for name, one in ((NEXT_KEY, found.successor), (OLD_KEY, found.retiring)):
            if (one is None or one.key is None) and (self.path / name).exists():
                (self.path / name).unlink()
                durable.sync_folder(self.path)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self.locked():
                yield
        except OSError as error:
            raise Unavailable(
                f"cannot change the certificate authority in {self.path}: {error.strerror}; "
                "mend that and give the command again"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time read or change the files, so that they go together."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _stamp(self) -> Stamp:
        """What is another once a file was replaced."""
        return tuple(_stat(self.path / name) for name in (CERTIFICATE, KEY, NEXT_KEY, OLD_KEY))

    def _check_new(self) -> None:
        """See that no authority was here: one whose key is away for a moment is not replaced."""
        used = [name for name in (NEXT_KEY, OLD_KEY, SERVER) if (self.path / name).exists()]
        if self._known is not None or used:
            raise InvalidConfiguration(
                f"{self.path / KEY} is missing: mount its folder, or restore it from a backup"
            )

    def _make(self, now_ms: int) -> None:
        """Certificate first: one without its key, after a power cut, is replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(CERTIFICATE, pem(_self_signed(key, now_ms)).encode())
        self._write(KEY, key_pem(key))

    def _load(self) -> Authorities:
        try:
            trusted = x509.load_pem_x509_certificates((self.path / CERTIFICATE).read_bytes())
        except ValueError as error:
            raise self._unusable(str(error)) from error
        keys = {name: self._key(name) for name in (KEY, NEXT_KEY, OLD_KEY)}
        states = {KEY: "signs", NEXT_KEY: "next", OLD_KEY: "retiring"}
        found: list[Authority] = []
        for certificate in trusted:
            name = next((n for n, key in keys.items() if _is_of(key, certificate)), None)
            # Without its key a certificate is of no use but for those that it has signed.
            state: State = "retiring" if name is None else states[name]  # type: ignore[assignment]
            key = None if name is None else keys[name]
            found.append(Authority(state=state, certificate=certificate, key=key))
        if sum(one.state == "signs" for one in found) != 1:
            raise InvalidConfiguration(
                f"{self.path / KEY} is not the key of {CERTIFICATE}: restore both of one backup"
            )
        order: tuple[State, ...] = ("signs", "next", "retiring")
        return Authorities(every=tuple(sorted(found, key=lambda one: order.index(one.state))))

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey | None:
        file = self.path / name
        if name != KEY and not file.exists():
            return None
        try:
            key = load_pem_private_key(file.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise self._unusable(f"{name}: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise self._unusable(f"{name} is no elliptic curve key")
        return key

    def _unusable(self, why: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{self.path} holds no certificate authority ({why}): restore its files from a backup"
        )

    def _write(self, name: str, data: bytes) -> None:
        durable.write_bytes(self.path / name, data, mode=0o644 if name == CERTIFICATE else 0o600)


def key_id(certificate: x509.Certificate) -> bytes:
    """What names a certificate's own key."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return found.value.digest


def issuer_id(certificate: x509.Certificate) -> bytes:
    """What names the key that has signed a certificate; empty where it says nothing."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return b""
    return found.value.key_identifier or b""


def fingerprint(certificate: x509.Certificate) -> str:
    """sha256 of a certificate, as people compare it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as text, not encrypted: only the server's user may read its file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """What a key may be used for (RFC 5280, section 4.2.1.3)."""
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


def named(text: str) -> x509.Name:
    """A subject of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _self_signed(key: ec.EllipticCurvePrivateKey, now_ms: int) -> x509.Certificate:
    """An authority's certificate; by its random name its lists are told from another's."""
    name = named(f"Serinus device CA {os.urandom(4).hex()}")
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )


def _is_of(key: ec.EllipticCurvePrivateKey | None, certificate: x509.Certificate) -> bool:
    return key is not None and key.public_key() == certificate.public_key()


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
