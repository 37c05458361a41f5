"""Enrolment tokens: each lets one device in, or a batch, until it ends."""

import msgspec

from fleet_server.domain import enrolling as rules
from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest, NotAuthenticated, NotFound
from fleet_server.services.hashed_secrets import SHOWN, digest, make
from fleet_server.services.tokens import SERVER, Person
from fleet_server.storage import audit, enrol_tokens, journal
from fleet_server.storage.database import Database
from fleet_server.storage.enrol_tokens import StoredEnrolToken

ALERT = "enrolment"
DAY_MS = 86_400_000
MOST_DAYS = 366
MOST_USES = 100_000
KEPT_MS = 90 * DAY_MS
"""Tokens that have ended are shown for so long."""
ENDED = {
    "revoked": "this enrolment token was revoked",
    "expired": "this enrolment token has expired: ask an operator for another",
    "spent": "this enrolment token has been used up: ask an operator for another",
}


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


class EnrolTokens:
    """Use cases on enrolment tokens."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
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
        secret = make("enrol")
        token = StoredEnrolToken(
            hash=digest(secret),
            devices=devices,
            uses=uses,
            uses_left=uses,
            reenrol=reenrol,
            created_ms=now,
            created_by=by[0],
            expires_ms=expires,
        )
        with self._database.write() as connection:
            enrol_tokens.drop(connection, now - KEPT_MS)
            enrol_tokens.add(connection, token)
            detail = {"token": token.hash[:SHOWN], "uses": uses, "reenrol": reenrol}
            audit.note(connection, now, by, "enrol_token.create", devices, detail)
        return secret

    def every(self) -> list[EnrolTokenView]:
        """All tokens, oldest first, without what they are known by."""
        now = self._clock()
        with self._database.read() as connection:
            return [_view(token, now) for token in enrol_tokens.every(connection)]

    def revoke(self, name: str, by: Person) -> None:
        """End a token, named by its first digits; raise :class:`NotFound`."""
        with self._database.write() as connection:
            found = [t for t in enrol_tokens.every(connection) if t.hash[:SHOWN] == name]
            if not found:
                raise NotFound(f"no enrolment token {name[:64]!r}: see serinus enrol token list")
            now = self._clock()
            if found[0].revoked_ms is None:
                enrol_tokens.revoke(connection, found[0].hash, now)
                detail = {"token": name}
                audit.note(connection, now, by, "enrol_token.revoke", found[0].devices, detail)
            journal.close_alert(connection, now, ALERT, name)

    def authenticate(self, secret: str) -> None:
        """See that a secret is a token's that has not ended; it may have been used up.

        Raises:
            NotAuthenticated: it is none, or one that was revoked or has expired.
        """
        with self._database.read() as connection:
            token = enrol_tokens.find(connection, digest(secret))
        if token is None:
            raise NotAuthenticated("this enrolment token is not known: ask an operator for one")
        state = usable(token, self._clock())
        if state in ("revoked", "expired"):
            raise NotAuthenticated(ENDED[state])

    def complain(self, token: StoredEnrolToken, used: str, device: str) -> None:
        """A token that comes again after it was used up may be stolen: a person should look."""
        name, now = token.hash[:SHOWN], self._clock()
        title = f"enrolment token {name} came again after it was {used}, for device {device[:64]}"
        with self._database.write() as connection:
            detail = {"token": name, "devices": token.devices, "device": device[:64]}
            if journal.open_alert(connection, now, ALERT, name, title, detail):
                audit.note(connection, now, SERVER, "enrolment.refuse", device, detail)


def usable(token: StoredEnrolToken, now_ms: int) -> rules.Usable:
    """Whether a token still enrols anybody."""
    return rules.usable(
        revoked_ms=token.revoked_ms,
        expires_ms=token.expires_ms,
        uses_left=token.uses_left,
        now_ms=now_ms,
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


def _view(token: StoredEnrolToken, now_ms: int) -> EnrolTokenView:
    state = usable(token, now_ms)
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
