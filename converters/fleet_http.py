"""A fleet server, as build machines ask it: by HTTP, with a token, within limits."""

import json
from pathlib import Path
from typing import Any

import urllib3

from edge_core.errors import InvalidConfiguration, SerinusError, Unavailable

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 1024 * 1024
NOT_FOUND, CONFLICT = 404, 409


class Refused(SerinusError):
    """What was asked is over by now, or gone: nobody has to correct anything."""


class FleetHttp:
    """The API of a fleet server.

    Every call raises:
        Unavailable: the server cannot be reached.
        Refused: the state of things does not allow it any more, or there is no such thing.
        InvalidConfiguration: it refuses the token, or what was said.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = f"{url.rstrip('/')}/api/v1"
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=TIMEOUT_SECONDS,
            retries=False,
        )

    def get(self, path: str) -> bytes:
        """Read something."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """Do something."""
        return self._ask("POST", path, json.dumps(body))

    def put(self, path: str, body: dict[str, Any]) -> bytes:
        """Leave something there."""
        return self._ask("PUT", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        try:
            answer = self._http.request(
                method, f"{self.url}/{path}", body=body, preload_content=False
            )
            with answer:
                data = answer.read(MAX_ANSWER_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the fleet server at {self.url} does not answer: {error}") from error
        if answer.status in (NOT_FOUND, CONFLICT):
            raise Refused(_detail(data))
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
