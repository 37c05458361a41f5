"""The fleet server's requests, over HTTP; what a worker needs of it and nothing else."""

import json
from pathlib import Path
from typing import Any, Protocol

import msgspec
import urllib3

from edge_core.errors import InvalidConfiguration, SerinusError, Unavailable

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 1024 * 1024
CONFLICT = 409


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


class FleetServer:
    """A fleet server with a token that may take requests."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/retraining"
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=TIMEOUT_SECONDS,
            retries=False,
        )

    def claim(self, worker: str, models: list[str]) -> Claimed | None:
        """Take the next request for one of these models.

        Raises:
            Unavailable: the server cannot be reached.
            InvalidConfiguration: it refuses the token, or answers something else.
        """
        answer = self._post("claims", {"worker": worker, "models": models})
        try:
            return msgspec.json.decode(answer, type=_Answer).claimed
        except msgspec.MsgspecError as error:
            raise InvalidConfiguration(f"{self._url} is no Serinus server: {error}") from error

    def renew(self, claimed: Claimed, progress: str) -> None:
        """Hold a request for longer."""
        body = {"lease": claimed.lease, "progress": progress}
        self._post(f"requests/{claimed.request}/renew", body)

    def finish(self, claimed: Claimed, state: str, outcome: str, **result: Any) -> None:
        """Say what came of it."""
        body = {"lease": claimed.lease, "state": state, "outcome": outcome, **result}
        self._post(f"requests/{claimed.request}/result", body)

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        try:
            answer = self._http.request(
                "POST", f"{self._url}/{path}", body=json.dumps(body), preload_content=False
            )
            with answer:
                data = answer.read(MAX_ANSWER_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(
                f"the fleet server at {self._url} does not answer: {error}"
            ) from error
        if answer.status == CONFLICT:
            raise LeaseLost(_detail(data))
        if answer.status >= 500:
            raise Unavailable(f"the fleet server answers {answer.status}: {_detail(data)}")
        if answer.status >= 400:
            raise InvalidConfiguration(f"the fleet server refuses: {_detail(data)}")
        return data


def read_token(file: Path) -> str:
    """The token in a file; raise :class:`InvalidConfiguration` where it cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(
            f"cannot read the token file {file}: {error}; make one with "
            "serinus-server token worker --role ci"
        ) from error


def _detail(data: bytes) -> str:
    try:
        return str(json.loads(data)["detail"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
