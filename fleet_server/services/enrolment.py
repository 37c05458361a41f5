"""Devices get certificates for tokens, renew them by their keys, and lose them."""

import base64
import binascii
import hashlib
import secrets
import threading
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_core.messages.enrolment import (
    MAX_TOKEN,
    Enrolled,
    EnrolRequest,
    Holder,
    RenewRequest,
    enrol_statement,
    renew_statement,
)
from fleet_server.device_ca import DeviceCa, Revoked
from fleet_server.domain import enrolling as rules
from fleet_server.domain.enrolling import Requested
from fleet_server.services.clock import Clock
from fleet_server.services.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
)
from fleet_server.services.tokens import Person
from fleet_server.storage import audit, enrolment, journal
from fleet_server.storage.database import Database
from fleet_server.storage.enrolment import Ended, StoredCertificate, StoredEnrolToken

ALERT = "enrolment"
BROKER_ALERT = "revocation"
SHOWN = 12
"""Digits of a token's hash that name it: they enrol nobody."""
DAY_MS = 86_400_000
MOST_DAYS = 366
MOST_USES = 100_000
MOST_IN_HOUR = 20
"""Certificates that one device may have made within an hour."""
HOUR_MS = 3_600_000
KEPT_MS = 90 * DAY_MS
"""Tokens and certificates that have ended are shown for so long."""
ENDED = {
    "revoked": "this enrolment token was revoked",
    "expired": "this enrolment token has expired: ask an operator for another",
    "spent": "this enrolment token has been used up: ask an operator for another",
}
DEVICE = "device"
"""Role of a device in the log of decisions."""


class EnrolTokenView(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolment token as the API shows it."""

    token: str
    devices: str
    uses: int
    uses_left: int
    reenrol: bool
    created_ms: int
    created_by: str
    expires_ms: int
    state: str
    """``usable``, ``spent``, ``expired`` or ``revoked``."""


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


class Enrolment:
    """Use cases on enrolment tokens and device certificates."""

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

    def create_token(
        self, devices: str, *, uses: int, reenrol: bool, expires_ms: int | None, by: Person
    ) -> str:
        """Make a token and return its secret, which is stored nowhere.

        Args:
            devices: the one name that it enrols, or a pattern with ``*``.
            uses: how many devices it enrols.
            reenrol: whether the name may go to another key, which ends the one before.
            expires_ms: when it ends; none: a day from now.
            by: who makes it.

        Raises:
            InvalidRequest: a value makes no sense.
        """
        now = self._clock()
        expires = now + DAY_MS if expires_ms is None else expires_ms
        problem = _problem_of_token(devices, uses, reenrol, expires - now)
        if problem:
            raise InvalidRequest(problem)
        secret = f"enrol_{secrets.token_urlsafe(32)}"
        token = StoredEnrolToken(
            hash=_digest(secret),
            devices=devices,
            uses=uses,
            uses_left=uses,
            reenrol=reenrol,
            created_ms=now,
            created_by=by[0],
            expires_ms=expires,
        )
        with self._database.write() as connection:
            enrolment.drop_tokens(connection, now - KEPT_MS)
            enrolment.add_token(connection, token)
            detail = {"token": token.hash[:SHOWN], "uses": uses, "reenrol": reenrol}
            self._note(connection, by, "enrol_token.create", devices, detail)
        return secret

    def tokens(self) -> list[EnrolTokenView]:
        """All tokens, oldest first, without what they are known by."""
        now = self._clock()
        with self._database.read() as connection:
            return [_token_view(token, now) for token in enrolment.every_token(connection)]

    def revoke_token(self, name: str, by: Person) -> None:
        """End a token, named by its first digits; raise :class:`NotFound`."""
        with self._database.write() as connection:
            found = [t for t in enrolment.every_token(connection) if t.hash[:SHOWN] == name]
            if not found:
                raise NotFound(f"no enrolment token {name[:64]!r}: see serinus enrol token list")
            now = self._clock()
            if found[0].revoked_ms is None:
                enrolment.revoke_token(connection, found[0].hash, now)
                detail = {"token": name}
                self._note(connection, by, "enrol_token.revoke", found[0].devices, detail)
            journal.close_alert(connection, now, ALERT, name)

    def enrol(self, request: EnrolRequest) -> Enrolled:
        """Make a device's certificate for a token.

        Asked again with the same key and token, it gives the same certificate and takes no use.

        Raises:
            NotAuthenticated: no such token, or one that has ended.
            NotAllowed: the token is not for this device.
            InvalidRequest: the request for a certificate is not one that is signed.
            Conflict: the name belongs to another key, or the key was revoked.
        """
        digest = _digest(request.token[:MAX_TOKEN])
        self._authenticate(digest)  # before anything of what a stranger sent is computed with
        asked = _checked(request.csr, request.device)
        holder = _holder(request.holder, request.device, asked)
        key = rules.fingerprint(asked.key)
        with self._database.write() as connection:
            now = self._clock()
            token = enrolment.find_token(connection, digest)
            assert token is not None, "tokens are dropped long after they have ended"
            if not rules.covers(token.devices, request.device):
                raise NotAllowed(f"this enrolment token is not for a device {request.device!r}")
            held = enrolment.of_device(connection, request.device)
            again = next((c for c in held if (c.key, c.token) == (key, digest)), None)
            if again is not None and _state(again, now) == "valid" and again.holder == holder:
                return self._enrolled(again)
            used = _usable(token, now)
            if used == "yes":
                self._take_name(connection, held, holder, token)
                enrolment.use_token(connection, digest)
                enrolment.forget(connection, now - KEPT_MS)
                made = self._issue(
                    connection, asked, request.device, holder, digest, "certificate.issue"
                )
        if used != "yes":
            self._complain(token, used, request.device)
            raise NotAuthenticated(ENDED[used])
        self.changed.set()  # a name that went to another key has lost its certificates
        return made

    def renew(self, request: RenewRequest) -> Enrolled:
        """Make a device's next certificate, vouched for by the holder of the one it has.

        Asked again with the same key, it gives the same certificate.

        Raises:
            NotAuthenticated: the certificate is not known, has ended, or the statement is not
                signed by its holder, or not about now.
            InvalidRequest: the request for a certificate is not one that is signed.
            Conflict: it is too early.
        """
        with self._database.read() as connection:
            present = enrolment.find_certificate(connection, request.serial)
        if present is None:
            raise NotAuthenticated("no such certificate: enrol the device with a token")
        asked = _checked(request.csr, present.device)
        statement = renew_statement(request.serial, request.at_ms, asked.der)
        if not rules.is_signed(
            rules.checked_key(present.holder), _decoded(request.signature), statement
        ):
            raise NotAuthenticated("the renewal is not signed by the holder of the certificate")
        with self._database.write() as connection:
            now = self._clock()
            present = enrolment.find_certificate(connection, request.serial)
            if present is None or (state := _state(present, now)) != "valid":
                ended = "not known" if present is None else state
                raise NotAuthenticated(
                    f"the certificate is {ended}: enrol the device again with a token"
                )
            if not rules.is_fresh(request.at_ms, now):
                raise NotAuthenticated(
                    f"the renewal was signed {abs(now - request.at_ms) // 1000} s from now: "
                    "correct the device's clock"
                )
            return self._renew(connection, present, asked, now)

    def certificates(
        self, limit: int, after: tuple[int, str] | None = None, *, device: str | None = None
    ) -> list[CertificateView]:
        """Certificates, newest first; ``after`` is (issued_ms, serial)."""
        now = self._clock()
        with self._database.read() as connection:
            found = enrolment.page(connection, limit, after, device=device)
        return [_view(certificate, now) for certificate in found]

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
                held = enrolment.of_device(connection, device)
            else:
                one = enrolment.find_certificate(connection, serial or "")
                held = [] if one is None else [one]
            if not held:
                raise NotFound("no such certificate: see serinus certificate list")
            ended = [entry for entry in held if entry.revoked_ms is None]
            for entry in ended:
                self._revoke(connection, entry, reason, by)
            shown = [enrolment.find_certificate(connection, entry.serial) for entry in ended]
        self.changed.set()
        return [_view(entry, now) for entry in shown if entry is not None]

    def revoked(self) -> list[Revoked]:
        """What is revoked and would still be valid."""
        with self._database.read() as connection:
            rows = enrolment.revoked(connection, self._clock())
        return [Revoked(serial=serial, at_ms=at_ms) for serial, at_ms in rows]

    def ended(self, since_ms: int, now_ms: int) -> list[Ended]:
        """Devices of which a certificate was revoked since a moment, or the last one expired."""
        with self._database.read() as connection:
            return enrolment.ended(connection, since_ms, now_ms)

    def broker_trouble(self, text: str) -> None:
        """Note that the broker lets in whom it should not, or that it does so no more (empty)."""
        with self._database.write() as connection:
            now = self._clock()
            if not text:
                journal.close_alert(connection, now, BROKER_ALERT, "broker")
            elif journal.open_alert(connection, now, BROKER_ALERT, "broker", text, {}):
                journal.add_event(connection, now, BROKER_ALERT, "broker", text)

    def revocations(self) -> bytes:
        """The revocation list as it is now (PEM), for brokers that others run."""
        return self.authority.revocations(self.revoked(), number=self._clock() // 1000)

    def authority_certificate(self) -> str:
        """The authority's certificate (PEM), which devices pin."""
        return self.authority.certificate(self._clock())

    def _authenticate(self, digest: str) -> None:
        with self._database.read() as connection:
            token = enrolment.find_token(connection, digest)
        if token is None:
            raise NotAuthenticated("this enrolment token is not known: ask an operator for one")
        if _usable(token, self._clock()) in ("revoked", "expired"):
            raise NotAuthenticated(ENDED[_usable(token, self._clock())])

    def _take_name(
        self,
        connection: sa.Connection,
        held: list[StoredCertificate],
        holder: str,
        token: StoredEnrolToken,
    ) -> None:
        """See that a name is free for a key, or is given to it."""
        found = rules.name_for(holder, [(c.holder, c.revoked_ms is not None) for c in held])
        if found == "key was revoked":
            raise Conflict("this key's certificate was revoked: make the device another key")
        if found == "another key":
            if not token.reenrol:
                raise Conflict(
                    f"{held[0].device!r} is enrolled with another key: an operator allows it with "
                    "serinus enrol token create --reenrol"
                )
            for entry in held:
                if entry.revoked_ms is None:
                    by = (token.created_by, "operator")
                    self._revoke(connection, entry, "enrolled anew with another key", by)

    def _renew(
        self, connection: sa.Connection, present: StoredCertificate, asked: Requested, now: int
    ) -> Enrolled:
        key = rules.fingerprint(asked.key)
        held = enrolment.of_device(connection, present.device)
        again = next((c for c in held if c.key == key), None)
        if again is not None and again.serial != present.serial and _state(again, now) == "valid":
            return self._enrolled(again)
        if rules.is_early(
            not_before_ms=present.issued_ms, not_after_ms=present.not_after_ms, now_ms=now
        ):
            raise Conflict("the certificate is too young to be renewed: ask again later")
        holder = present.holder if present.hardware else rules.pem_of(asked.key)
        return self._issue(
            connection, asked, present.device, holder, present.token, "certificate.renew"
        )

    def _issue(
        self,
        connection: sa.Connection,
        asked: Requested,
        device: str,
        holder: str,
        token: str,
        action: str,
    ) -> Enrolled:
        now = self._clock()
        key = rules.fingerprint(asked.key)
        lately = [c for c in enrolment.of_device(connection, device) if c.issued_ms > now - HOUR_MS]
        if len(lately) >= MOST_IN_HOUR:
            raise Conflict(f"{device!r} had {MOST_IN_HOUR} certificates made within an hour: wait")
        if any(c.device != device or c.revoked_ms for c in enrolment.of_key(connection, key)):
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
        enrolment.add_certificate(connection, row)
        detail = {"serial": row.serial, "token": token[:SHOWN], "hardware": row.hardware}
        self._note(connection, (device, DEVICE), action, device, detail)
        return self._enrolled(row)

    def _enrolled(self, row: StoredCertificate) -> Enrolled:
        return Enrolled(
            device=row.device,
            serial=row.serial,
            not_before_ms=row.not_before_ms,
            not_after_ms=row.not_after_ms,
            certificate=row.pem,
            chain=self.authority_certificate(),
        )

    def _revoke(
        self, connection: sa.Connection, entry: StoredCertificate, reason: str, by: Person
    ) -> None:
        enrolment.revoke(connection, entry.serial, self._clock(), by[0], reason)
        detail = {"serial": entry.serial, "reason": reason}
        self._note(connection, by, "certificate.revoke", entry.device, detail)

    def _complain(self, token: StoredEnrolToken, used: str, device: str) -> None:
        """A token that comes again after it was used up may be stolen: a person should look."""
        name = token.hash[:SHOWN]
        title = f"enrolment token {name} came again after it was {used}, for device {device[:64]}"
        with self._database.write() as connection:
            detail = {"token": name, "devices": token.devices, "device": device[:64]}
            if journal.open_alert(connection, self._clock(), ALERT, name, title, detail):
                self._note(connection, ("server", "server"), "enrolment.refuse", device, detail)

    def _note(
        self,
        connection: sa.Connection,
        by: Person,
        action: str,
        subject: str,
        detail: dict[str, Any],
    ) -> None:
        audit.record(
            connection,
            at_ms=self._clock(),
            actor=by[0],
            role=by[1],
            action=action,
            subject=subject,
            detail=detail,
        )


def _problem_of_token(devices: str, uses: int, reenrol: bool, life_ms: int) -> str:
    if not rules.PATTERN.match(devices):
        return "a token is for a device's name, or a pattern such as watch-*"
    if not 1 <= uses <= MOST_USES:
        return f"a token enrols 1 to {MOST_USES} devices"
    if "*" not in devices and uses > 1:
        return "a token for one name is used once; name a pattern such as watch-* for several"
    if reenrol and "*" in devices:
        return "only a token for one name may give it to another key"
    if life_ms <= 0:
        return "a token cannot expire before it is made"
    return f"a token lasts {MOST_DAYS} days at most" if life_ms > MOST_DAYS * DAY_MS else ""


def _checked(csr: str, device: str) -> Requested:
    try:
        return rules.checked_request(csr, device)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _holder(holder: Holder | None, device: str, asked: Requested) -> str:
    """Public key (PEM) that may renew: one in hardware that says so, or the certified one."""
    if holder is None:
        return rules.pem_of(asked.key)
    try:
        key = rules.checked_key(holder.key)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    if not rules.is_signed(key, _decoded(holder.signature), enrol_statement(device, asked.der)):
        raise InvalidRequest("the holder's key has not signed this request")
    return rules.pem_of(key)


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("the signature is not base64") from error


def _usable(token: StoredEnrolToken, now_ms: int) -> rules.Usable:
    return rules.usable(
        revoked_ms=token.revoked_ms,
        expires_ms=token.expires_ms,
        uses_left=token.uses_left,
        now_ms=now_ms,
    )


def _state(certificate: StoredCertificate, now_ms: int) -> str:
    if certificate.revoked_ms is not None:
        return "revoked"
    return "valid" if now_ms < certificate.not_after_ms else "expired"


def _token_view(token: StoredEnrolToken, now_ms: int) -> EnrolTokenView:
    state = _usable(token, now_ms)
    return EnrolTokenView(
        token=token.hash[:SHOWN],
        devices=token.devices,
        uses=token.uses,
        uses_left=token.uses_left,
        reenrol=token.reenrol,
        created_ms=token.created_ms,
        created_by=token.created_by,
        expires_ms=token.expires_ms,
        state="usable" if state == "yes" else state,
    )


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
        state=_state(certificate, now_ms),
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
