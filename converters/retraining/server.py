"""The fleet server's requests for training, over HTTP."""

from typing import Any, Protocol

import msgspec

from converters.fleet_http import FleetHttp, Refused
from edge_core.errors import InvalidConfiguration, SerinusError


class LeaseLost(SerinusError):
    """The request is somebody else's by now, or nobody's: what was made of it is not wanted."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A request that this worker holds."""

    request: int
    model: str
    reason: str
    incumbent: str | None
    """``model@version``."""
    incumbent_digest: str | None
    lease: str
    lease_seconds: float


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    claimed: Claimed | None


class RequestSource(Protocol):
    """Where requests come from."""

    def claim(self, worker: str, models: list[str]) -> Claimed | None:
        """Take the next request for one of these models; none where there is none."""
        ...

    def renew(self, claimed: Claimed, progress: str) -> None:
        """Hold a request for longer; raise :class:`LeaseLost` where it is not ours any more."""
        ...

    def finish(self, claimed: Claimed, state: str, outcome: str, **result: Any) -> None:
        """Say what came of it; raises as :meth:`renew`."""
        ...


class FleetRequests:
    """Those of a fleet server."""

    def __init__(self, http: FleetHttp) -> None:
        self._http = http

    def claim(self, worker: str, models: list[str]) -> Claimed | None:
        """Take the next request for one of these models.

        Raises:
            Unavailable: the server cannot be reached.
            InvalidConfiguration: it refuses the token, or answers something else.
        """
        answer = self._http.post("retraining/claims", {"worker": worker, "models": models})
        try:
            return msgspec.json.decode(answer, type=_Answer).claimed
        except msgspec.MsgspecError as error:
            raise InvalidConfiguration(f"{self._http.url} is no Serinus server: {error}") from error

    def renew(self, claimed: Claimed, progress: str) -> None:
        """Hold a request for longer."""
        self._say(f"requests/{claimed.request}/renew", claimed, {"progress": progress})

    def finish(self, claimed: Claimed, state: str, outcome: str, **result: Any) -> None:
        """Say what came of it."""
        body = {"state": state, "outcome": outcome, **result}
        self._say(f"requests/{claimed.request}/result", claimed, body)

    def _say(self, path: str, claimed: Claimed, body: dict[str, Any]) -> None:
        try:
            self._http.post(f"retraining/{path}", {"lease": claimed.lease, **body})
        except Refused as error:
            raise LeaseLost(str(error)) from error
