"""Who may call: bearer tokens with roles, and the console's sessions."""

import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import sqlalchemy as sa

from edge_core import durable
from edge_core.errors import printable
from edge_core.release import MODEL_PATTERN
from fleet_server.domain.permissions import ROLES, Permission, Role, may, roles_with
from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound
from fleet_server.services.hashed_secrets import SHOWN, digest, make
from fleet_server.storage import audit, tokens
from fleet_server.storage.database import Database
from fleet_server.storage.tokens import StoredToken

SESSION_MS = 12 * 3600 * 1000
KEPT_MS = 30 * 86_400_000
"""A token that has ended by itself is shown for so long."""
MAX_SECRET = 256
WHERE = "the server wrote one to operator.token in its data folder"


Person = tuple[str, str]
"""Name and role."""
SERVER: Person = ("server", "server")


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token as the API shows it."""

    token: str
    name: str
    role: str
    models: list[str]
    """What it may change something of; empty: of all."""
    created_ms: int
    expires_ms: int | None


class Tokens:
    """Checks secrets against stored hashes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def ensure_operator(self, file: Path) -> None:
        """Write an operator's token to ``file`` unless it holds one that is known."""
        if file.exists():
            with self._database.read() as connection:
                if tokens.find(connection, digest(file.read_text().strip())) is not None:
                    return
        secret = self.create("operator", "operator")
        durable.write_bytes(file, f"{secret}\n".encode(), mode=0o600)

    def create(
        self,
        name: str,
        role: str,
        *,
        expires_ms: int | None = None,
        models: Sequence[str] = (),
        by: Person | None = None,
    ) -> str:
        """Make a token and return its secret, which is stored nowhere.

        Args:
            name: whom it is for, as the log of decisions shows it.
            role: one of :data:`ROLES`.
            expires_ms: when it ends by itself; none: never.
            models: what it may change something of; empty: of all, and what is about no model.
            by: who makes it; none: somebody at the server's own machine.

        Raises:
            InvalidRequest: no such role, no model's name, or the time is over already.
        """
        if role not in ROLES:
            raise InvalidRequest(f"role {role[:64]!r} is not one of {', '.join(ROLES)}")
        secret = make("serinus")
        now = self._clock()
        if expires_ms is not None and expires_ms <= now:
            raise InvalidRequest("a token cannot expire before it is made")
        if wrong := [model for model in models if not re.match(MODEL_PATTERN, model)]:
            raise InvalidRequest(f"{wrong[0][:64]!r} is no model's name")
        token = StoredToken(
            hash=digest(secret),
            name=name,
            role=role,
            created_ms=now,
            expires_ms=expires_ms,
            models=sorted(set(models)),
        )
        with self._database.write() as connection:
            tokens.add(connection, token)
            self._note(connection, by or SERVER, "token_created", token)
        return secret

    def every(self) -> list[TokenView]:
        """All tokens, oldest first, without what they are known by."""
        with self._database.read() as connection:
            return [_view(token) for token in tokens.every(connection)]

    def revoke(self, token: str, by: Person) -> None:
        """End a token and its sessions at once; raise :class:`NotFound`."""
        with self._database.write() as connection:
            found = [row for row in tokens.every(connection) if _view(row).token == token]
            if not found:
                raise NotFound(f"no token {token[:64]!r}: see serinus tokens list")
            tokens.drop(connection, found[0].hash)
            self._note(connection, by, "token_revoked", found[0])

    def _note(self, connection: sa.Connection, by: Person, action: str, of: StoredToken) -> None:
        detail = {"token": _view(of).token, "role": of.role, "models": of.models}
        audit.note(connection, self._clock(), by, action, of.name, detail)

    def authenticate(self, secret: str | None) -> StoredToken:
        """Return the token of a secret; raise :class:`NotAuthenticated` where there is none."""
        if not secret or len(secret) > MAX_SECRET:
            raise NotAuthenticated(
                "a bearer token is needed; see operator.token in the data folder"
            )
        with self._database.read() as connection:
            token = tokens.find(connection, digest(secret))
        if token is None:
            raise NotAuthenticated(f"this token is not known: {WHERE}")
        if token.expires_ms is not None and token.expires_ms <= self._clock():
            raise NotAuthenticated(f"the token {token.name!r} has expired: ask for another")
        return token

    def log_in(self, secret: str) -> str:
        """Start a console session and return its secret."""
        token = self.authenticate(secret)
        session = secrets.token_urlsafe(32)
        now = self._clock()
        with self._database.write() as connection:
            tokens.end_sessions(connection, None, now)
            tokens.add_session(connection, digest(session), token.hash, now + SESSION_MS)
            self._note(connection, (token.name, token.role), "logged_in", token)
        return session

    def log_in_as(self, name: str, role: Role) -> str:
        """Start a console session for a person that others vouch for; return its secret.

        The token behind it is known to nobody and ends with the session.
        """
        session, now = secrets.token_urlsafe(32), self._clock()
        token = StoredToken(
            hash=digest(secrets.token_urlsafe(32)),
            name=name,
            role=role,
            created_ms=now,
            expires_ms=now + SESSION_MS,
        )
        with self._database.write() as connection:
            tokens.end_sessions(connection, None, now)
            tokens.drop_ended(connection, now - KEPT_MS)
            tokens.add(connection, token)
            tokens.add_session(connection, digest(session), token.hash, now + SESSION_MS)
            self._note(connection, (name, role), "logged_in", token)
        return session

    def session(self, secret: str | None) -> StoredToken:
        """Return the token behind a console session."""
        if secret and len(secret) <= MAX_SECRET:
            with self._database.read() as connection:
                token = tokens.find_session(connection, digest(secret), self._clock())
            if token is not None:
                return token
        raise NotAuthenticated("log in with a token")

    def log_out(self, secret: str | None) -> None:
        """End a console session."""
        with self._database.write() as connection:
            tokens.end_sessions(connection, digest(secret or ""), self._clock())


def demand(token: StoredToken, permission: Permission) -> None:
    """Raise :class:`NotAllowed` where a token's role does not include a permission."""
    if not may(token.role, permission):
        roles = " or ".join(roles_with(permission))
        raise NotAllowed(f"the token {token.name!r} is of role {token.role}; this needs {roles}")


def demand_models(token: StoredToken, models: Iterable[str]) -> None:
    """Raise :class:`NotAllowed` where a token is not for all of these models."""
    other = [model for model in models if token.models and model not in token.models]
    if other:
        raise NotAllowed(
            f"the token {token.name!r} is for {', '.join(token.models)} only, not for "
            f"{printable(other[0][:64]) or 'what is no model any more'}"
        )


def _view(token: StoredToken) -> TokenView:
    return TokenView(
        token=token.hash[:SHOWN],
        name=token.name,
        role=token.role,
        models=token.models,
        created_ms=token.created_ms,
        expires_ms=token.expires_ms,
    )
