"""People's own accounts: OpenID Connect, authorisation code with PKCE.

Sources: OpenID Connect Core 1.0 (id tokens, nonce), Discovery 1.0, RFC 7636 (PKCE), RFC 9700.
"""

import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.config import OidcConfig
from fleet_server.domain.permissions import ROLES, Role
from fleet_server.services.errors import NotAllowed, NotAuthenticated

TIMEOUT_SECONDS = 10.0
KEPT_SECONDS = 3600.0
"""Addresses and keys of the accounts are asked for again after this."""
MAX_NAME = 64
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Never ``none`` and nothing symmetric."""
SCOPE = "openid profile email"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the accounts vouch for."""

    name: str
    role: Role


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What a browser keeps while its person logs in elsewhere."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Self:
        """Unguessable values."""
        return cls(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
        )

    def text(self) -> str:
        """As a cookie."""
        return ".".join((self.state, self.nonce, self.verifier))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """A cookie's values; none where it is no such cookie."""
        parts = text.split(".")
        if len(parts) != 3 or not all(parts):
            return None
        return cls(state=parts[0], nonce=parts[1], verifier=parts[2])


class Accounts:
    """One provider of accounts."""

    def __init__(self, config: OidcConfig) -> None:
        """Read the client's secret.

        Raises:
            InvalidConfiguration: it cannot be read, or the extra ``oidc`` is not installed.
        """
        try:
            import authlib.integrations.httpx_client  # noqa: F401
            import joserfc  # noqa: F401
        except ImportError as error:
            raise InvalidConfiguration(
                f"[oidc] needs the extra: pip install 'serinus[oidc]' ({error})"
            ) from None
        self._config = config
        self._secret = config.secret()
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Any], Any] | None = None

    @property
    def name(self) -> str:
        """As the log-in page shows it."""
        return self._config.name

    @property
    def secure(self) -> bool:
        """Whether browsers come by HTTPS."""
        return self._config.public_url.startswith("https://")

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends people back to; it has to know this address."""
        return f"{self._config.public_url.rstrip('/')}/login/accounts/back"

    def begin(self) -> tuple[str, Attempt]:
        """Where to send somebody, and what their browser keeps; raise :class:`Unavailable`."""
        metadata, _ = self._provider()
        attempt = Attempt.new()
        with self._client() as client:
            address, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(address), attempt

    def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> Person:
        """Who came back.

        Args:
            attempt: what their browser kept.
            answer: parameters of the address that they came back to.

        Raises:
            NotAuthenticated: it is not the answer to this attempt, or proves nobody.
            NotAllowed: the accounts give them no role here.
            Unavailable: the provider does not answer.
        """
        if not secrets.compare_digest(answer.get("state", ""), attempt.state):
            raise NotAuthenticated("this is not the answer to your log-in: try again")
        if "error" in answer or "code" not in answer:
            said = answer.get("error_description") or answer.get("error") or "no code"
            raise NotAuthenticated(f"{self.name} did not log you in: {said[:200]}")
        claims = self._claims(self._exchanged(answer["code"], attempt), attempt)
        return self._person(claims)

    def _exchanged(self, code: str, attempt: Attempt) -> str:
        from authlib.integrations.base_client import OAuthError
        from httpx import HTTPError

        metadata, _ = self._provider()
        try:
            with self._client() as client:
                token = client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=attempt.verifier
                )
        except HTTPError as error:
            raise Unavailable(f"{self.name} does not answer: {error}") from error
        except (OAuthError, ValueError) as error:
            raise NotAuthenticated(f"{self.name} does not take the code: {error}") from error
        return str(token.get("id_token", ""))

    def _claims(self, text: str, attempt: Attempt) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        metadata, keys = self._provider()
        try:
            claims: dict[str, Any] = jwt.decode(text, keys, algorithms=ALGORITHMS).claims
            jwt.JWTClaimsRegistry(
                leeway=60,
                iss={"essential": True, "value": metadata["issuer"]},
                aud={"essential": True, "value": self._config.client_id},
                exp={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": attempt.nonce},
            ).validate(claims)
        except (JoseError, ValueError) as error:
            raise NotAuthenticated(f"{self.name} sent no valid proof: {error}") from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if several and claims.get("azp") != self._config.client_id:
            raise NotAuthenticated(f"the proof of {self.name} was made for another application")
        return claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        name = str(claims.get(self._config.name_claim) or claims["sub"])[:MAX_NAME]
        if not name.isprintable():
            raise NotAuthenticated(f"{self.name} names you by something that cannot be shown")
        if self._config.name_claim == "email" and claims.get("email_verified") is False:
            raise NotAllowed(f"{self.name} has not verified the address {name}")
        told = claims.get(self._config.role_claim, [])
        groups = told if isinstance(told, list) else [told]
        named = {group for group in groups if isinstance(group, str)}
        found = [role for group, role in self._config.roles.items() if group in named]
        if not found:
            raise NotAllowed(
                f"{name} is in no group that has a role here; [oidc.roles] names "
                f"{', '.join(sorted(self._config.roles)) or 'none'}"
            )
        return Person(name=name, role=max(found, key=_rank))

    def _client(self) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        return OAuth2Client(
            client_id=self._config.client_id,
            client_secret=self._secret,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope=SCOPE,
            redirect_uri=self.redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_SECONDS,
        )

    def _provider(self) -> tuple[dict[str, Any], Any]:
        """Addresses and keys, by discovery."""
        import httpx
        from joserfc.jwk import KeySet

        with self._lock:
            if self._found is not None and time.monotonic() - self._found[0] < KEPT_SECONDS:
                return self._found[1], self._found[2]
            issuer = self._config.issuer.rstrip("/")
            try:
                with httpx.Client(timeout=TIMEOUT_SECONDS) as http:
                    answer = http.get(f"{issuer}/.well-known/openid-configuration")
                    metadata: dict[str, Any] = answer.raise_for_status().json()
                    keys = http.get(metadata["jwks_uri"]).raise_for_status().json()
                found = KeySet.import_key_set(keys)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                raise Unavailable(f"{self.name} at {issuer} cannot be reached: {error}") from error
            called = str(metadata.get("issuer", ""))[:200]
            if called.rstrip("/") != issuer:
                raise Unavailable(f"{issuer} calls itself {called!r}: correct [oidc] issuer")
            self._found = time.monotonic(), metadata, found
            return metadata, found


def _rank(role: Role) -> int:
    """Of several groups the one that may most."""
    order: tuple[Role, ...] = ("viewer", "ci", "approver", "operator")
    assert set(order) == set(ROLES)
    return order.index(role)
