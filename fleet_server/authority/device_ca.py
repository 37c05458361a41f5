"""The fleet's certificate authority: what it signs. Nothing here approves a release.

It certifies devices for TLS clients, and this server's own names for TLS servers; the two cannot
stand in for one another (extended key usage, RFC 5280 section 4.2.1.12).
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.authority import ca_folder
from fleet_server.authority.ca_folder import (
    BACKDATED,
    CA_LIFE,
    SERVER,
    Authorities,
    Authority,
    CaFolder,
)

SERVER_LIFE = timedelta(days=397)
CRL_LIFE = timedelta(days=7)
OWNER = "@server"
"""The server's name towards its broker; no device can have it."""
END = b"-----END X509 CRL-----\n"


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
    pem: str
    """The certificate: who has signed it lists it."""


class DeviceCa:
    """What the authorities in one folder sign; made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = CaFolder(folder)

    @property
    def exists(self) -> bool:
        """Whether there is one already."""
        return (self._folder.path / ca_folder.KEY).exists()

    @property
    def certificate_file(self) -> Path:
        """What devices and brokers trust."""
        return self._folder.path / ca_folder.CERTIFICATE

    @property
    def server_file(self) -> Path:
        """The server's own certificate, chain and key, where one was made."""
        return self._folder.path / SERVER

    def authorities(self, now_ms: int) -> Authorities:
        """Whoever is trusted now.

        Raises:
            InvalidConfiguration: the files belong to no authority.
            Unavailable: they cannot be read or made.
        """
        return self._folder.read(now_ms)

    def trusted(self, now_ms: int) -> str:
        """Certificates of all that are trusted (PEM), that of who signs first."""
        return self.authorities(now_ms).pem

    def certify_device(
        self,
        key: ec.EllipticCurvePublicKey,
        device: str,
        *,
        now_ms: int,
        life: timedelta,
        by: Authority | None = None,
    ) -> Made:
        """Certify a device's key, for TLS clients only; by who signs unless another is named.

        Raises:
            InvalidConfiguration: the authority's files cannot be used.
        """
        usage, by = ExtendedKeyUsageOID.CLIENT_AUTH, by or self.authorities(now_ms).signer
        return _made(_certified(key, device, usage, by=by, now_ms=now_ms, life=life))

    def identity(
        self, name: str, *, now_ms: int, life: timedelta = CA_LIFE, by: Authority | None = None
    ) -> tuple[Made, bytes]:
        """A client's certificate with a new key: for the server itself, or to take over a name.

        Returns:
            The certificate, and key and certificate as PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.certify_device(key.public_key(), name, now_ms=now_ms, life=life, by=by)
        return made, ca_folder.key_pem(key) + made.pem.encode()

    def certify_server(self, names: Sequence[str], *, now_ms: int) -> Path:
        """Make the server's certificate for names and addresses; returns its file.

        Raises:
            InvalidConfiguration: a name is none, or the files cannot be used.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signer = self.authorities(now_ms).signer
        certificate = _certified(
            key.public_key(),
            names[0],
            ExtendedKeyUsageOID.SERVER_AUTH,
            by=signer,
            now_ms=now_ms,
            life=SERVER_LIFE,
            names=x509.SubjectAlternativeName([_alternative(name) for name in names]),
        )
        chain = ca_folder.pem(certificate) + ca_folder.pem(signer.certificate)
        return self._folder.write_server(SERVER, ca_folder.key_pem(key) + chain.encode())

    def prepare(self, clock: Callable[[], int]) -> None:
        """Make a successor, which is trusted from now on; nothing where one is under way."""
        self._folder.prepare(clock)

    def switch(self, now_ms: int) -> None:
        """Let the successor sign, the server's own certificate as well; go on where it began."""
        self._folder.switch()
        self._renew_server(now_ms)

    def retire(self, now_ms: int) -> None:
        """Trust the authority before no more, and remove its key; go on where it began."""
        self._renew_server(now_ms)
        self._folder.retire()

    def revocations(self, revoked: Sequence[Revoked], *, number: int) -> bytes:
        """The signed revocation lists (PEM), one of each authority that has its key.

        Clients look for the list of who has signed a certificate (RFC 5280, section 6.3.3).

        Args:
            revoked: what is revoked.
            number: seconds since 1970, larger with every list; the list is dated an hour before,
                for a list that is not newer than another replaces it nowhere.
        """
        found, entries = self.authorities(number * 1000), _by_issuer(revoked)
        return b"".join(
            _list(one.key, one.certificate, entries.get(one.key_id, []), number)
            for one in found.every
            if one.key is not None
        )

    def is_list(self, data: bytes, revoked: Sequence[Revoked], *, now_ms: int) -> bool:
        """Whether bytes are lists of the authorities that are valid now and name these."""
        entries = _by_issuer(revoked)
        lists = [part + END for part in data.split(END) if part.strip()]
        holders = [one for one in self.authorities(now_ms).every if one.key is not None]
        return len(lists) == len(holders) and all(
            _is_list(part, one, {e.serial for e in entries.get(one.key_id, [])}, now_ms)
            for part, one in zip(lists, holders, strict=True)
        )

    def _renew_server(self, now_ms: int) -> None:
        """Make the server's certificate anew, for the same names, where another has signed it."""
        try:
            present = x509.load_pem_x509_certificate(self.server_file.read_bytes())
        except FileNotFoundError:
            return  # it has one of another authority, or none
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"cannot read {self.server_file} ({error}): make it anew with 'serinus-server "
                "certificate NAME', then give the command again"
            ) from error
        if ca_folder.issuer_id(present) != self.authorities(now_ms).signer.key_id:
            self.certify_server(_names_of(present), now_ms=now_ms)


def issuer_of(pem: str) -> bytes:
    """What names the authority that has signed a certificate, see :attr:`Authority.key_id`."""
    return ca_folder.issuer_id(x509.load_pem_x509_certificate(pem.encode()))


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
        pem=ca_folder.pem(certificate),
    )


def _by_issuer(revoked: Sequence[Revoked]) -> Mapping[bytes, list[Revoked]]:
    found: dict[bytes, list[Revoked]] = {}
    for entry in revoked:
        found.setdefault(issuer_of(entry.pem), []).append(entry)
    return found


def _list(
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    revoked: Sequence[Revoked],
    number: int,
) -> bytes:
    dated = datetime.fromtimestamp(number, UTC) - BACKDATED
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(dated)
        .next_update(dated + CRL_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issued_by(key), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(int(entry.serial, 16))
            .revocation_date(_moment(entry.at_ms))
            .build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _is_list(data: bytes, authority: Authority, serials: set[str], now_ms: int) -> bool:
    certificate = authority.certificate
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey), "keys are made here, or checked"
    try:
        found = x509.load_pem_x509_crl(data)
        signed = found.is_signature_valid(public)
    except (ValueError, TypeError):
        return False
    until, now = found.next_update_utc, _moment(now_ms)
    current = found.last_update_utc <= now and until is not None and now < until
    named = {_serial(entry.serial_number) for entry in found}
    return signed and current and found.issuer == certificate.subject and serials <= named


def _certified(
    key: ec.EllipticCurvePublicKey,
    name: str,
    usage: x509.ObjectIdentifier,
    *,
    by: Authority,
    now_ms: int,
    life: timedelta,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    assert by.key is not None, "who has lost its key signs nothing"
    now, authority = _moment(now_ms), by.certificate
    begin = max(now - min(BACKDATED, life / 10), authority.not_valid_before_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(ca_folder.named(name[:64]))
        .issuer_name(authority.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(min(now + life, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(ca_folder.usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_issued_by(by.key), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(by.key, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise InvalidConfiguration(f"{name!r} is no name of a server: {error}") from error


def _names_of(certificate: x509.Certificate) -> list[str]:
    """Names and addresses that a server's certificate is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


def _issued_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _serial(number: int) -> str:
    return f"{number:x}"


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
