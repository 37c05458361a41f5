"""Bodies, paths and types of requests over HTTP, through the real application and engine."""

import asyncio
from pathlib import Path

import httpx
import msgspec

from edge_agent.serving import rest
from edge_core.errors import InvalidMessage, SerinusError
from tests.fuzz.forms import BYTES, JSON
from tests.fuzz.mutator import Case
from tests.fuzz.served import NOW, PARCELS, WINDOWS, Served
from tests.fuzz.surface import Surface
from tests.fuzz.surfaces.frames import SAMPLES

FLAT = SAMPLES.ravel().tolist()
ROWS = {"name": "samples", "shape": [2, 8, 2], "datatype": "FP32"}
MODELS = {
    WINDOWS: [
        ("POST", "/infer", {"id": "x", "inputs": [ROWS | {"data": SAMPLES.tolist()}]}),
        ("POST", "/infer", {
            "parameters": {"slices": {"side": "left"}}, "inputs": [ROWS | {"data": FLAT}],
        }),
        ("POST", "/explain", {"inputs": [ROWS | {"data": FLAT}], "parameters": {"by": "inputs"}}),
        ("POST", "/feedback", {"prediction_id": "fuzz-0", "label": "still"}),
        ("GET", "", None),
        ("GET", "/ready", None),
    ],
    PARCELS: [
        ("POST", "/infer", {"inputs": [
            {"name": "place", "shape": [2], "datatype": "BYTES", "data": ["p1", "p2"]},
            {"name": "size", "shape": [2], "datatype": "FP32", "data": [1.5, None]},
        ]}),
        ("POST", "/infer", {"inputs": [
            {"name": "at", "shape": [2], "datatype": "INT64", "data": [NOW, NOW]},
            {"name": "place", "shape": [2], "datatype": "BYTES", "data": ["p1", "p2"]},
            {"name": "size", "shape": [2], "datatype": "FP32", "data": [1.5, None]},
        ]}),
        ("POST", "/events/parcels", {
            "times_us": [NOW - 9, NOW - 8],
            "sequence": [1, 2],
            "fields": {"place": ["p1", "p2"], "kind": ["box", None], "weight": [1.5, None]},
        }),
    ],
}  # fmt: skip
"""A route more is a line more: method, path below the model's, body."""
ALWAYS = [
    ("GET", path, None)
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/healthz", "/readyz", "/metrics")
]
REFUSED = {400, 404, 405, 408, 413, 415, 422, 429, 431, 503, 504}


class _Http(Surface):
    """One model; subclasses say which."""

    forms = (BYTES, BYTES, JSON)
    model = ""
    short = 120

    def __init__(self, folder: Path) -> None:
        self._served = Served(folder, self.model)
        listener = rest.listen(0)
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = rest.create_app(self._served.engine, "0.1.0")
        self._serving = asyncio.run_coroutine_threadsafe(
            rest.serve(app, listener), self._served.loop
        )
        self._client = httpx.AsyncClient()
        below = f"/v2/models/{self.model}"
        routes = ALWAYS + [(m, below + path, body) for m, path, body in MODELS[self.model]]
        self.seeds = [
            (f"{method} {path}".encode(), b"application/json", _encoded(body))
            for method, path, body in routes
        ]
        self._expected = self._label()

    def counted(self) -> int:
        return self._served.engine.tally.refused_requests

    def feed(self, case: Case) -> int:
        route, content_type, body = case
        method, _, path = route.partition(b" ")
        answer = self._send(method, path, content_type, body)
        if answer is None or answer.status_code < 400:
            return 0
        assert answer.status_code in REFUSED, (answer.status_code, answer.text)
        if "json" not in answer.headers.get("content-type", ""):
            return 0  # the framework's own: no such route, or another method
        said = msgspec.json.decode(answer.content)["error"]
        error: SerinusError = InvalidMessage(said)
        assert str(error) == said, "not one printable line"
        raise error

    def _send(
        self, method: bytes, path: bytes, content_type: bytes, body: bytes
    ) -> httpx.Response | None:
        """Answer; none where no client could send that."""
        if not method.isascii():  # the client refuses it, by a TypeError of its own
            return None
        try:
            request = self._client.build_request(
                method.decode() or "GET",
                self._url + path.decode().lstrip("/"),
                content=body,
                headers={b"content-type": content_type},
            )
        except (httpx.InvalidURL, UnicodeError, ValueError):
            return None
        try:
            return self._served.run(self._client.send(request))
        except httpx.LocalProtocolError:
            return None

    def check(self) -> None:
        assert self._label() == self._expected

    def _label(self) -> object:
        route, content_type, body = self.seeds[len(ALWAYS)]
        answer = self._send(*route.split(b" "), content_type, body)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"][:2] if self.model == WINDOWS else None

    def close(self) -> None:
        self._served.run(self._client.aclose())
        self._serving.cancel()
        self._served.close()


class HttpWindows(_Http):
    """A model of windows."""

    name = "http-windows"
    model = WINDOWS


class HttpRequests(_Http):
    """A model of requests, with events."""

    name = "http-requests"
    model = PARCELS


def _encoded(body: object) -> bytes:
    return b"" if body is None else msgspec.json.encode(body)
