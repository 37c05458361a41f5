"""HTTP/1.1 over real sockets, with clients that do what they should not."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.serving import http_protocol, rest
from edge_agent.serving.http_protocol import Request, Respond, Response
from edge_core.errors import SerinusError

pytestmark = pytest.mark.anyio
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Answers at once what it was asked, or when it is let go; ``/bad`` is a path that raises."""

    def __init__(self) -> None:
        self.held: list[Respond] = []
        self.seen: list[Request] = []
        self.refusals: list[str] = []

    def answer(self, request: Request, respond: Respond) -> None:
        self.seen.append(request)
        if request.path == "/later":
            self.held.append(respond)
        elif request.path == "/large":
            respond(Response(bytes(32 * 1024 * 1024)))
        else:
            text = f"{request.method} {request.path} {len(request.body)}"
            respond(Response(text.encode(), more=b"x-more: 1\r\n"))

    def refused(self, error: SerinusError) -> Response:
        self.refusals.append(type(error).__name__)
        return Response(json.dumps({"error": str(error)}).encode(), 400)


@asynccontextmanager
async def serving(app: Echo) -> AsyncIterator[int]:
    listener = rest.listen(0)
    port = listener.getsockname()[1]
    task = asyncio.create_task(http_protocol.serve(app, listener))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        yield port
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


def post(path: str, body: bytes, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_one_connection_answers_many_requests() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as (reader, writer):
        for body in (b"", b"abc", b"x" * 300_000):
            writer.write(post("/a%20b?q=1", body))
            status, headers, found = await answer(reader)
            assert (status, found.decode()) == (200, f"POST /a b {len(body)}")
            assert (headers["x-more"], "connection" in headers) == ("1", False)
        writer.write(b"GET /v2 HTTP/1.1\r\nX-Thing: Value\r\n\r\n")
        assert (await answer(reader))[2] == b"GET /v2 0"
    assert app.seen[-1].header(b"x-thing") == b"Value"
    assert app.seen[-1].header(b"other") is None


async def test_bytes_may_come_one_by_one_and_chunked() -> None:
    app = Echo()
    chunked = (
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n"
    )
    async with serving(app) as port, connected(port) as (reader, writer):
        for data in (chunked, post("/p", b"12345")):
            for place in range(len(data)):
                writer.write(data[place : place + 1])
                await writer.drain()
        assert (await answer(reader))[2] == b"POST /c 8"
        assert (await answer(reader))[2] == b"POST /p 5"
    assert app.seen[0].body == b"abcdefgh"


async def test_a_long_head_may_come_in_pieces() -> None:
    head = b"GET /h HTTP/1.1\r\n" + b"".join(b"a%d: %b\r\n" % (n, b"x" * 300) for n in range(45))
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        for place in range(0, len(head), 500):
            writer.write(head[place : place + 500])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"\r\n")
        assert (await answer(reader))[2] == b"GET /h 0"


async def test_pipelined_requests_are_answered_in_order() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(b"".join(post(f"/{number}", bytes(number)) for number in range(20)))
        for number in range(20):
            assert (await answer(reader))[2] == f"POST /{number} {number}".encode()
        writer.write(post("/later", b"") + post("/next", b""))
        while not app.held:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert [request.path for request in app.seen[-1:]] == ["/later"]
        app.held.pop()(Response(b"now"))
        assert (await answer(reader))[2] == b"now"
        assert (await answer(reader))[2] == b"POST /next 0"


async def test_a_pipeline_has_an_end() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(post("/later", b"") + post("/x", b"") * (http_protocol.MAX_PIPELINED + 1))
        while not app.held:
            await asyncio.sleep(0)
        app.held.pop()(Response(b"now"))
        answers = [await answer(reader) for _ in range(http_protocol.MAX_PIPELINED + 2)]
        assert b"64 requests in one go" in answers[-1][2]
        assert [status for status, _, _ in answers[:-1]] == [200] * (len(answers) - 1)
        assert await reader.read() == b""
    assert app.refusals == ["Overloaded"]


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
    ],
)
async def test_the_client_says_whether_the_connection_is_kept(
    request_: bytes, connection: str | None
) -> None:
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(request_)
        assert (await answer(reader))[1].get("connection") == connection
        if connection == "close":
            assert await reader.read() == b""
        else:
            writer.write(request_)
            assert (await answer(reader))[0] == 200


async def test_an_offer_of_http_2_is_ignored() -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    plain = "\r\n".join(["GET /g HTTP/1.1", *offer, "", ""]).encode()
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(plain + post("/y", b""))
        assert (await answer(reader))[2] == b"GET /g 0"
        assert (await answer(reader))[2] == b"POST /y 0"


async def test_head_gets_no_body_and_continue_is_said() -> None:
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(b"HEAD /h HTTP/1.1\r\n\r\n" + post("/x", b"abc", "Expect: 100-continue"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 9" in head
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert (await answer(reader))[2] == b"POST /x 3"


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "InvalidMessage", "not HTTP"),
        (b"nonsense\r\n\r\n", "InvalidMessage", "not HTTP"),
        (b"GET / HTTP/9.9\r\n\r\n", "InvalidMessage", "not HTTP"),
        (post("/", b"")[:-2] + b"Content-Length: 7\r\n\r\n", "InvalidMessage", "not HTTP"),
        (post("/", b"", "Transfer-Encoding: chunked"), "InvalidMessage", "not HTTP"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "InvalidMessage", "not HTTP"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "InvalidMessage", "HTTP"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "InvalidMessage", "names no path"),
        (b"GET /" + b"x" * 20_000, "TooLong", "head of more than 16384 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 66, "TooLong", "or 64 headers"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 600_000, "TooLong", "head of more than"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + b"b" * 20_000_000,
            "TooLarge",
            "send fewer rows",
        ),
        (post("/", b"a", "Connection: Upgrade", "Upgrade: h2c"), "InvalidMessage", "ask without"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "TooLarge", "send fewer rows"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"400000\r\n" + bytes(0x400000) + b"\r\n"
            + b"400000\r\n" + bytes(0x400000) + b"\r\n"
            + b"1\r\na\r\n0\r\n\r\n",
            "TooLarge",
            "send fewer rows",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:24].decode("latin-1"),
)  # fmt: skip
async def test_what_is_no_request_gets_one_line(data: bytes, kind: str, text: str) -> None:
    app = Echo()
    async with serving(app) as port:
        async with connected(port) as (reader, writer):
            writer.write(data)
            status, headers, body = await answer(reader)
            assert (status, headers["connection"]) == (400, "close")
            assert text in json.loads(body)["error"]
            assert await reader.read() == b""
        async with connected(port) as (reader, writer):
            writer.write(b"GET /next HTTP/1.1\r\n\r\n")
            assert (await answer(reader))[2] == b"GET /next 0"
    assert app.refusals == [kind]


async def test_a_client_that_is_too_slow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(http_protocol, "SWEEP_SECONDS", 0.02)
    app = Echo()
    async with serving(app) as port:
        for sent in (b"GET / HTT", post("/", b"abc")[:-1]):
            async with connected(port) as (reader, writer):
                writer.write(sent)
                assert b"did not come within" in (await answer(reader))[2]
                assert await reader.read() == b""
    assert app.refusals == ["TooSlow"] * 2
    assert not app.seen


async def test_idle_connections_are_closed_and_busy_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(http_protocol, "SWEEP_SECONDS", 0.02)
    app = Echo()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(post("/later", b""))
        async with connected(port) as (idle, _):
            assert await idle.read() == b""
        app.held.pop()(Response(b"late"))
        assert (await answer(reader))[2] == b"late"
        assert await reader.read() == b""


async def test_too_many_connections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 2)
    app = Echo()
    async with serving(app) as port, connected(port) as (one, writer), connected(port):
        writer.write(b"GET /a HTTP/1.1\r\n\r\n")
        assert (await answer(one))[0] == 200
        async with connected(port) as (refused, _):
            assert b"more than 2 connections" in (await answer(refused))[2]
        writer.write(b"GET /b HTTP/1.1\r\n\r\n")
        assert (await answer(one))[2] == b"GET /b 0"
    assert app.refusals == ["Overloaded"]


async def test_a_client_that_reads_nothing_is_asked_no_more() -> None:
    app = Echo()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(post("/large", b"") * 8)
        while len(app.seen) < 1:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(app.seen) == 1  # the second waits until the first answer is away
        for _ in range(8):
            assert len((await answer(reader))[2]) == 32 * 1024 * 1024
        assert len(app.seen) == 8


async def test_an_answer_for_a_client_that_left_is_dropped() -> None:
    app = Echo()
    async with serving(app) as port:
        async with connected(port) as (_, writer):
            writer.write(post("/later", b""))
            while not app.held:
                await asyncio.sleep(0)
        async with connected(port) as (reader, writer):
            writer.write(post("/x", b""))
            assert (await answer(reader))[0] == 200
            app.held.pop()(Response(b"nobody reads it"))
            writer.write(post("/y", b""))
            assert (await answer(reader))[2] == b"POST /y 0"


async def test_a_stop_lets_requests_under_way_end() -> None:
    app = Echo()
    listener = rest.listen(0)
    port = listener.getsockname()[1]
    task = asyncio.create_task(http_protocol.serve(app, listener))
    await asyncio.sleep(0)
    async with connected(port) as (reader, writer), connected(port) as (idle, _):
        writer.write(post("/later", b""))
        while not app.held:
            await asyncio.sleep(0)
        task.cancel()
        assert await idle.read() == b""
        app.held.pop()(Response(b"the last"))
        assert (await answer(reader))[2] == b"the last"
        assert await reader.read() == b""
        await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_the_listener_lets_asyncio_turn_nagle_off() -> None:
    """Without the protocol's number asyncio leaves it on, and answers may wait for 40 ms."""
    import socket

    with rest.listen(0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP


class Wire(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return False


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n\r\n",
        post("/x", b"abc"),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1",
        b"Expect: 100-continue\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=12), max_size=10), st.integers(1, 40))
def test_any_bytes_are_answered_or_refused(pieces: list[bytes], step: int) -> None:
    async def story() -> None:
        app, wire = Echo(), Wire()
        connection = http_protocol.Connection(app, set())
        connection.connection_made(wire)
        data = b"".join(pieces)
        for place in range(0, len(data), step):
            if not wire.closed:
                connection.data_received(data[place : place + step])
            await asyncio.sleep(0)
        assert wire.written.count(b"HTTP/1.1 200 ") == len(app.seen)
        assert len(app.refusals) <= 1

    asyncio.run(story())
