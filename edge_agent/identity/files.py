"""The device's key and certificate in its state folder, replaced together or not at all."""

from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from edge_agent.identity.keys import FileKey
from edge_core import durable
from edge_core.errors import InvalidConfiguration, NoDisk, SerinusError

OWN = "device.pem"
"""Key and certificate in one file, so that a power cut never leaves one without the other."""
NEXT = "next.key"
"""A key that was sent for certification: asked again with it, the server answers the same."""
LEARNT = "trusted.json"
"""Whom the fleet trusts, as it said when the device was last certified."""
MAX_BYTES = 128 * 1024
"""Above what the largest answer of a server becomes."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent has to know of its certificate."""

    serial: str
    """Lower-case hex."""
    device: str
    not_before_ms: int
    not_after_ms: int
    public_pem: str


class IdentityFiles:
    """One folder, for the agent's user alone."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "identity"

    @property
    def own(self) -> Path:
        """Key and certificate, for TLS."""
        return self._folder / OWN

    def present(self) -> tuple[FileKey, Certificate] | None:
        """The device's key and certificate; none where it was never enrolled.

        Raises:
            InvalidConfiguration: the file is damaged.
        """
        data = self._read(OWN)
        if data is None:
            return None
        try:
            key, found = FileKey.read(data), certificate(data)
        except SerinusError as error:
            raise InvalidConfiguration(
                f"{self.own} is damaged ({error}): remove it and enrol the device again"
            ) from error
        if key.public_pem != found.public_pem:
            raise InvalidConfiguration(
                f"{self.own} has a certificate of another key: remove it and enrol again"
            )
        return key, found

    def next_key(self) -> FileKey:
        """The key to be certified next, kept before anybody hears of it.

        Raises:
            NoDisk: it cannot be kept.
        """
        data = self._read(NEXT)
        if data is not None:
            try:
                return FileKey.read(data)
            except InvalidConfiguration:
                pass  # nothing rests on it yet
        key = FileKey.generate()
        self._write(NEXT, key.pem)
        return key

    def take(self, key: FileKey, certificate_pem: str) -> None:
        """Let a key and its certificate be the device's from now on.

        Raises:
            NoDisk: they cannot be kept; the ones before stay.
        """
        self._write(OWN, key.pem + certificate_pem.encode())
        self.forget_next()

    def learnt(self) -> bytes | None:
        """What was learnt of the fleet's authorities; none where nothing was."""
        return self._read(LEARNT)

    def keep_learnt(self, data: bytes) -> None:
        """Let this be what was learnt.

        Raises:
            NoDisk: it cannot be kept; what was there stays.
        """
        self._write(LEARNT, data)

    def forget_next(self) -> None:
        """Make another key next time: this one was refused, or is in use."""
        (self._folder / NEXT).unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as stream:
                return stream.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidConfiguration(
                f"cannot read {self._folder / name}: {error.strerror}"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            durable.write_bytes(self._folder / name, data, mode=0o600)
        except OSError as error:
            raise NoDisk(f"cannot write {self._folder / name}: {error.strerror}") from error


def certificate(pem: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        InvalidConfiguration: it is none.
    """
    try:
        found = x509.load_pem_x509_certificate(pem)
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public = found.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise InvalidConfiguration(f"this is no certificate (PEM): {error}") from error
    return Certificate(
        serial=f"{found.serial_number:x}",
        device=str(names[0].value) if len(names) == 1 else "",
        not_before_ms=round(found.not_valid_before_utc.timestamp() * 1000),
        not_after_ms=round(found.not_valid_after_utc.timestamp() * 1000),
        public_pem=public.decode(),
    )
