"""Tokens: who may call, as what, until when."""

from collections.abc import Sequence

from fleet_client.transport import Calls, Json, part


class TokenCalls(Calls):
    """Tokens: who may call, as what, until when."""

    def create_token(
        self, name: str, role: str, expires_ms: int | None = None, models: Sequence[str] = ()
    ) -> str:
        """Make a token and return its secret, which nobody is shown again.

        Where ``models`` are named, it may change nothing else.

        It is asked for once only: where no answer comes, look at :meth:`tokens`.
        """
        body = {"name": name, "role": role, "expires_ms": expires_ms, "models": list(models)}
        return str(self._post_once("tokens", body)["secret"])

    def tokens(self) -> list[Json]:
        """List the tokens, oldest first."""
        return self._items("tokens")

    def revoke_token(self, token: str) -> None:
        """End a token, named as the list names it."""
        self._delete(f"tokens/{part(token)}")
