"""Devices get certificates for tokens, and renew them by their keys."""

import base64
import binascii

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
from fleet_server.domain import enrolling as rules
from fleet_server.domain.enrolling import Requested
from fleet_server.services.certificates import KEPT_MS, Certificates, state_of
from fleet_server.services.clock import Clock
from fleet_server.services.enrol_tokens import ENDED, EnrolTokens, usable
from fleet_server.services.errors import Conflict, InvalidRequest, NotAllowed, NotAuthenticated
from fleet_server.services.hashed_secrets import digest
from fleet_server.storage import certificates, enrol_tokens
from fleet_server.storage.certificates import StoredCertificate
from fleet_server.storage.database import Database
from fleet_server.storage.enrol_tokens import StoredEnrolToken


class Enrolment:
    """What devices ask for, without any API token."""

    def __init__(
        self, database: Database, clock: Clock, tokens: EnrolTokens, certificates: Certificates
    ) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._certificates = certificates

    def enrol(self, request: EnrolRequest) -> Enrolled:
        """Make a device's certificate for a token.

        Asked again with the same key and token, it gives the same certificate and takes no use.

        Raises:
            NotAuthenticated: no such token, or one that has ended.
            NotAllowed: the token is not for this device.
            InvalidRequest: the request for a certificate is not one that is signed.
            Conflict: the name belongs to another key, or the key was revoked.
        """
        secret = request.token[:MAX_TOKEN]
        self._tokens.authenticate(secret)  # before anything is computed for a stranger
        asked = _checked(request.csr, request.device)
        holder = _holder(request.holder, request.device, asked)
        key = rules.fingerprint(asked.key)
        with self._database.write() as connection:
            now = self._clock()
            token = enrol_tokens.find(connection, digest(secret))
            assert token is not None, "tokens are dropped long after they have ended"
            if not rules.covers(token.devices, request.device):
                raise NotAllowed(f"this enrolment token is not for a device {request.device!r}")
            held = certificates.of_device(connection, request.device)
            again = next((c for c in held if (c.key, c.token) == (key, token.hash)), None)
            if again is not None and state_of(again, now) == "valid" and again.holder == holder:
                return self._certificates.answer(again)
            used = usable(token, now)
            if used == "yes":
                self._take_name(connection, held, holder, token)
                enrol_tokens.use(connection, token.hash)
                certificates.forget(connection, now - KEPT_MS)
                made = self._certificates.issue(
                    connection, asked, request.device, holder, token.hash, "certificate.issue"
                )
        if used != "yes":
            self._tokens.complain(token, used, request.device)
            raise NotAuthenticated(ENDED[used])
        self._certificates.changed.set()  # a name that went to another key has lost the others
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
            present = certificates.find(connection, request.serial)
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
            present = certificates.find(connection, request.serial)
            if present is None or (state := state_of(present, now)) != "valid":
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
                    by, reason = (token.created_by, "operator"), "enrolled anew with another key"
                    self._certificates.revoke_one(connection, entry, reason, by)

    def _renew(
        self, connection: sa.Connection, present: StoredCertificate, asked: Requested, now: int
    ) -> Enrolled:
        key = rules.fingerprint(asked.key)
        held = certificates.of_device(connection, present.device)
        again = next((c for c in held if c.key == key), None)
        if again is not None and again.serial != present.serial and state_of(again, now) == "valid":
            return self._certificates.answer(again)
        if rules.is_early(
            not_before_ms=present.issued_ms, not_after_ms=present.not_after_ms, now_ms=now
        ):
            raise Conflict("the certificate is too young to be renewed: ask again later")
        holder = present.holder if present.hardware else rules.pem_of(asked.key)
        return self._certificates.issue(
            connection, asked, present.device, holder, present.token, "certificate.renew"
        )


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
