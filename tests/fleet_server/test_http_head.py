"""A request without an end holds nobody up: a real uvicorn with the server's own protocol."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fleet_server import http_head
from fleet_server.http_head import MAX_HEAD_BYTES, LimitedHead
from tests.simulators.processes import wait_for

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with how many bytes the body had."""
    read, more = 0, True
    while more:
        message = await receive()
        read, more = read + len(message.get("body", b"")), message.get("more_body", False)
    body = f"{read} bytes".encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(greet, http=LimitedHead, port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    wait_for(lambda: server.started, seconds=10, what="uvicorn")
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def said(port: int, *parts: bytes) -> bytes:
    """Send parts one after the other; everything that comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                line.sendall(part)
        except ConnectionError:
            pass  # it was told that it is too much, or will be
        found = b""
        try:
            while data := line.recv(65536):
                found += data
        except ConnectionError:
            pass
        return found


def endless() -> Iterator[bytes]:
    """More than is ever read."""
    return (b"a" * 16_384 for _ in range(2000))


@pytest.mark.parametrize("head", [HEAD + b"X: ", b"GET /"], ids=["field", "line"])
def test_a_head_that_does_not_end_is_refused(port: int, head: bytes) -> None:
    found = said(port, head, *endless())
    assert found == b"" or found.startswith(b"HTTP/1.1 431")  # or reset, as it went on sending


def test_many_fields_count_together(port: int) -> None:
    fields = (b"X-%d: " % number + b"a" * 1000 + b"\r\n" for number in range(2000))
    found = said(port, HEAD, *fields)
    assert found == b"" or found.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("end", [b"0\r\nX: ", b"5;x="], ids=["trailer", "extension"])
def test_what_follows_a_head_and_is_no_body_is_limited_too(port: int, end: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"200 OK" not in said(port, head, end, *endless())


def test_ordinary_requests_pass(port: int) -> None:
    close = b"Connection: close\r\n"
    assert said(
        port, HEAD + b"X: " + b"a" * 8000, b"a" * 8000 + b"\r\n" + close + b"\r\n"
    ).endswith(b"0 bytes")
    size = MAX_HEAD_BYTES * 4
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size + close + b"\r\n"
    found = said(port, head, *[b"b" * 1024] * (size // 1024))
    assert found.endswith(b"%d bytes" % size)


def test_a_line_s_end_after_a_request_holds_no_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_head, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(HEAD + b"\r\n")
        found = b""
        while not found.endswith(b"0 bytes"):  # head and body come apart at times
            found += line.recv(65536)
        line.sendall(b"\r\n")
        assert line.recv(65536) == b""


def test_a_body_that_does_not_come_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_head, "BODY_SECONDS", 0.2)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    assert said(port, head) == b""
    assert said(port, head, b"abc") == b""


def test_a_head_that_crawls_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_head, "HEAD_SECONDS", 0.2)
    assert said(port) == b""
    assert said(port, HEAD) == b""
