"""Certificates of devices: made by the fleet's authority, shown, revoked."""

import threading
from datetime import timedelta

import msgspec
import sqlalchemy as sa

from edge_core.errors import InvalidConfiguration
from edge_core.messages.enrolment import Enrolled
from fleet_server.authority.device_ca import DeviceCa, Revoked
from fleet_server.domain import enrolling as rules
from fleet_server.domain.enrolling import Requested
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.hashed_secrets import SHOWN
from fleet_server.services.tokens import Person
from fleet_server.storage import audit, certificates, journal
from fleet_server.storage.certificates import Ended, Standing, StoredCertificate
from fleet_server.storage.database import Database

BROKER_ALERT = "revocation"
MOST_IN_HOUR = 20
"""Certificates that one device may have made within an hour."""
HOUR_MS = 3_600_000
SOON_MS = 7 * 86_400_000
"""A certificate that ends so soon should have been renewed already, with usual settings."""
KEPT_MS = 90 * 86_400_000
"""Certificates that have ended are shown for so long."""
DEVICE = "device"
"""Role of a device in the log of decisions."""


class CertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """A device's certificate as the API shows it."""

    serial: str
    device: str
    key: str
    hardware: bool
    """Whether a key in the device's hardware has to vouch for each renewal."""
    token: str
    issued_ms: int
    not_before_ms: int
    not_after_ms: int
    revoked_ms: int | None
    revoked_by: str | None
    reason: str
    state: str
    """``valid``, ``expired`` or ``revoked``."""


class Certificates:
    """Use cases on device certificates."""

    def __init__(
        self, database: Database, clock: Clock, authority: DeviceCa, life: timedelta
    ) -> None:
        """Take parts; ``life`` is a device certificate's."""
        self._database = database
        self._clock = clock
        self._life = life
        self.authority = authority
        self.changed = threading.Event()
        """Set whenever a certificate may have been revoked: the broker has to know at once."""

    def page(
        self, limit: int, after: tuple[int, str] | None = None, *, device: str | None = None
    ) -> list[CertificateView]:
        """Certificates, newest first; ``after`` is (issued_ms, serial)."""
        now = self._clock()
        with self._database.read() as connection:
            found = certificates.page(connection, limit, after, device=device)
        return [_view(certificate, now) for certificate in found]

    def standing(self) -> Standing:
        """How many devices hold a certificate, and what kind of one."""
        now = self._clock()
        with self._database.read() as connection:
            return certificates.standing(connection, now, now + SOON_MS)

    def revoke(
        self, *, serial: str | None, device: str | None, reason: str, by: Person
    ) -> list[CertificateView]:
        """Revoke one certificate, or all of a device; returns those that were still valid.

        Raises:
            InvalidRequest: not one of both was named.
            NotFound: there is no such certificate.
        """
        if (serial is None) == (device is None):
            raise InvalidRequest("name a certificate's serial, or a device")
        with self._database.write() as connection:
            now = self._clock()
            if device is not None:
                held = certificates.of_device(connection, device)
            else:
                one = certificates.find(connection, serial or "")
                held = [] if one is None else [one]
            if not held:
                raise NotFound("no such certificate: see serinus certificate list")
            ended = [entry for entry in held if entry.revoked_ms is None]
            for entry in ended:
                self.revoke_one(connection, entry, reason, by)
            shown = [certificates.find(connection, entry.serial) for entry in ended]
        self.changed.set()
        return [_view(entry, now) for entry in shown if entry is not None]

    def revoked(self) -> list[Revoked]:
        """What is revoked and would still be valid."""
        with self._database.read() as connection:
            rows = certificates.revoked(connection, self._clock())
        return [Revoked(serial=serial, at_ms=at_ms, pem=pem) for serial, at_ms, pem in rows]

    def revoked_serials(self) -> set[str]:
        """Serials of the same."""
        with self._database.read() as connection:
            return certificates.revoked_serials(connection, self._clock())

    def ended(self, since_ms: int, now_ms: int) -> list[Ended]:
        """Devices of which a certificate was revoked since a moment, or the last one expired."""
        with self._database.read() as connection:
            return certificates.ended(connection, since_ms, now_ms)

    def broker_trouble(self, text: str) -> None:
        """Note that the broker lets in whom it should not, or that it does so no more (empty)."""
        with self._database.write() as connection:
            now = self._clock()
            if not text:
                journal.close_alert(connection, now, BROKER_ALERT, "broker")
            elif journal.open_alert(connection, now, BROKER_ALERT, "broker", text, {}):
                journal.add_event(connection, now, BROKER_ALERT, "broker", text)

    def revocations(self) -> bytes:
        """The revocation lists as they are now (PEM), for brokers that others run."""
        return self.authority.revocations(self.revoked(), number=self._clock() // 1000)

    def check_authority(self) -> None:
        """See that the authority of the fleet's devices is there: else another would be made.

        Raises:
            InvalidConfiguration: devices have certificates of one that is not.
        """
        standing = self.standing()
        if not self.authority.exists and standing.valid + standing.ending:
            raise InvalidConfiguration(
                f"{self.authority.certificate_file.parent} holds no authority, but devices have "
                "certificates: mount its folder, or restore it from a backup"
            )

    def trusted(self) -> str:
        """Certificates of the authorities that are trusted (PEM), which devices pin."""
        return self.authority.trusted(self._clock())

    def issue(
        self,
        connection: sa.Connection,
        asked: Requested,
        device: str,
        holder: str,
        token: str,
        action: str,
    ) -> Enrolled:
        """Certify a device's key, in the transaction that says why it may be.

        Args:
            connection: that transaction.
            asked: the request, checked.
            device: name that it is for.
            holder: public key (PEM) that may have it renewed.
            token: hash of the enrolment token that it goes back to.
            action: as the log of decisions calls it.

        Raises:
            Conflict: too many within an hour, or the key is another device's or was revoked.
        """
        now = self._clock()
        key = rules.fingerprint(asked.key)
        held = certificates.of_device(connection, device)
        if sum(entry.issued_ms > now - HOUR_MS for entry in held) >= MOST_IN_HOUR:
            raise Conflict(f"{device!r} had {MOST_IN_HOUR} certificates made within an hour: wait")
        if any(c.device != device or c.revoked_ms for c in certificates.of_key(connection, key)):
            raise Conflict("this key is another device's, or was revoked: make another key")
        made = self.authority.certify_device(asked.key, device, now_ms=now, life=self._life)
        row = StoredCertificate(
            serial=made.serial,
            device=device,
            key=key,
            holder=holder,
            hardware=holder != rules.pem_of(asked.key),
            token=token,
            pem=made.pem,
            issued_ms=now,
            not_before_ms=made.not_before_ms,
            not_after_ms=made.not_after_ms,
        )
        certificates.add(connection, row)
        detail = {"serial": row.serial, "token": token[:SHOWN], "hardware": row.hardware}
        audit.note(connection, now, (device, DEVICE), action, device, detail)
        return self.answer(row)

    def answer(self, row: StoredCertificate) -> Enrolled:
        """What a device gets."""
        return Enrolled(
            device=row.device,
            serial=row.serial,
            not_before_ms=row.not_before_ms,
            not_after_ms=row.not_after_ms,
            certificate=row.pem,
            chain=self.trusted(),
        )

    def revoke_one(
        self, connection: sa.Connection, entry: StoredCertificate, reason: str, by: Person
    ) -> None:
        """Revoke a certificate; set :attr:`changed` once the transaction is over."""
        certificates.revoke(connection, entry.serial, self._clock(), by[0], reason)
        detail = {"serial": entry.serial, "reason": reason}
        audit.note(connection, self._clock(), by, "certificate.revoke", entry.device, detail)


def state_of(certificate: StoredCertificate, now_ms: int) -> str:
    """``valid``, ``expired`` or ``revoked``."""
    if certificate.revoked_ms is not None:
        return "revoked"
    return "valid" if now_ms < certificate.not_after_ms else "expired"


def _view(certificate: StoredCertificate, now_ms: int) -> CertificateView:
    return CertificateView(
        serial=certificate.serial,
        device=certificate.device,
        key=certificate.key,
        hardware=certificate.hardware,
        token=certificate.token[:SHOWN],
        issued_ms=certificate.issued_ms,
        not_before_ms=certificate.not_before_ms,
        not_after_ms=certificate.not_after_ms,
        revoked_ms=certificate.revoked_ms,
        revoked_by=certificate.revoked_by,
        reason=certificate.reason,
        state=state_of(certificate, now_ms),
    )
