"""HTTP to one server: requests, answers, what went wrong."""

import json
import ssl
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from edge_core.errors import InvalidConfiguration, SerinusError, Unavailable

DEFAULT_URL = "http://127.0.0.1:8321"
TIMEOUT_SECONDS = 15.0
PAGE = 1000
MOST = 1000
"""Entries that a list gives where nothing is said."""
SILENT_SECONDS = 40.0
"""A stream of events that says nothing for so long is dead: there is a heartbeat."""
PAUSES = (0.2, 0.5, 1.0)
"""Seconds before a request is sent again, with the same key."""

Json = dict[str, Any]


class Refused(SerinusError):
    """The server answered with a problem; ``status`` is its HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Calls:
    """Speaks to one server with one token; answers are the API's JSON.

    Every method raises :class:`Unavailable` when the server cannot be reached and
    :class:`Refused` when it will not do what was asked.
    """

    def __init__(
        self, url: str = DEFAULT_URL, token: str = "", *, ca_file: Path | None = None
    ) -> None:
        """Take an address and a token.

        Args:
            url: the server's address.
            token: of the API.
            ca_file: certificate (PEM) that the server's has to be signed by; none: any authority
                that this machine trusts.

        Raises:
            InvalidConfiguration: one of them is none.
        """
        self.url = url.rstrip("/")
        if not _is_address(self.url):
            raise InvalidConfiguration(f"{url!r} is not an address: write it as {DEFAULT_URL}")
        if not token.isascii():
            raise InvalidConfiguration("the token is not one that a server made: read it again")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_SECONDS,
            verify=True if ca_file is None else _trusting(ca_file),
        )

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _get(self, path: str, **query: Any) -> Json:
        return self._call("GET", path, params=query)

    def _items(self, path: str, **query: Any) -> list[Json]:
        items: list[Json] = self._get(path, **query)["items"]
        return items

    def _pages(self, path: str, **query: Any) -> Iterator[Json]:
        """Entries of a list that comes in parts, one part at a time."""
        cursor: Json = {}
        while True:
            part_ = self._get(path, **{"limit": PAGE, **query, **cursor})
            yield from part_["items"]
            if not part_.get("next"):
                return
            cursor = {"cursor": part_["next"]}

    def _first(self, path: str, most: int, **query: Any) -> list[Json]:
        """So many entries from the beginning of a list that comes in parts."""
        return list(islice(self._pages(path, limit=min(most, PAGE), **query), most))

    def _post(self, path: str, body: Json | None) -> Json:
        """Ask once, whatever the way there loses: the server knows the key."""
        return self._call("POST", path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    def _post_once(self, path: str, body: Json) -> Json:
        """Ask without a key, and never again: the answer is kept nowhere."""
        answer = self._asked("POST", path, json=body)
        if answer is None:
            raise Unavailable(f"{self.url} ended the connection: look what is there, then ask")
        return _content(_checked(answer), self.url)

    def _put(self, path: str, body: Json) -> Json:
        return self._call("PUT", path, json=body)

    def _delete(self, path: str) -> None:
        self._answer("DELETE", path)

    def _bytes(self, path: str) -> bytes:
        return self._answer("GET", path).content

    def _call(self, method: str, path: str, **options: Any) -> Json:
        return _content(self._answer(method, path, **options), self.url)

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask, and again where the answer was lost or the server cannot just now."""
        for pause in PAUSES:
            answer = self._asked(method, path, **options)
            if answer is not None and "retry-after" not in answer.headers:
                return _checked(answer)
            time.sleep(pause)
        last = self._asked(method, path, **options)
        if last is None:
            raise Unavailable(f"{self.url} ends connections without an answer")
        return _checked(last)

    def _asked(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """An answer; none where it was lost on its way."""
        try:
            return self._http.request(method, path, **options)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            return None
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.url} did not answer within {TIMEOUT_SECONDS:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"no Serinus server answers at {self.url} ({error}): start one with "
                "'serinus-server run', or name another with --url"
            ) from error

    def _events(self, path: str, last: int | None) -> Iterator[tuple[int, Json]]:
        """Server-sent events from one connection; ends with it."""
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENT_SECONDS)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise Refused(answer.status_code, _detail(answer))
                number = last or 0
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        number = int(value)
                    elif name == "data":
                        yield number, json.loads(value)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url} tells no more events: {error}") from error


def _trusting(ca_file: Path) -> ssl.SSLContext:
    """Trust one authority alone."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot use the CA file {ca_file}: {error.strerror or error}"
        ) from error


def _content(answer: httpx.Response, url: str) -> Json:
    try:
        content: Json = answer.json()
    except ValueError as error:
        raise Unavailable(f"{url} does not answer as a Serinus server does") from error
    if not isinstance(content, dict):
        raise Unavailable(f"{url} does not answer as a Serinus server does")
    return content


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise Refused(answer.status_code, _detail(answer))
    return answer


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}"


def part(name: str) -> str:
    """Name as one part of a path."""
    return quote(name, safe="")
