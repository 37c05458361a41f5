import asyncio
import socket

import pytest

from edge_agent.serving.whole_answers import _Joining

pytestmark = pytest.mark.anyio


class Recording(asyncio.Transport):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.calls: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append("closed")


async def test_head_and_body_are_written_together() -> None:
    inner = Recording()
    joining = _Joining(inner)
    joining.write(b"head ")
    joining.write(b"body")
    assert inner.calls == []
    await asyncio.sleep(0)
    assert inner.calls == [b"head body"]
    joining.write(b"next")
    await asyncio.sleep(0)
    assert inner.calls == [b"head body", b"next"]


async def test_nothing_is_lost_by_closing() -> None:
    inner = Recording()
    joining = _Joining(inner)
    joining.write(b"last")
    joining.close()
    await asyncio.sleep(0)
    assert inner.calls == [b"last", "closed"]


async def test_the_rest_is_the_transports() -> None:
    inner = Recording()
    assert _Joining(inner).get_extra_info("peername") == ("127.0.0.1", 1)


async def test_the_listener_lets_asyncio_turn_nagle_off() -> None:
    """Without the protocol's number asyncio leaves it on, and answers wait for 40 ms."""
    from edge_agent.serving import rest

    with rest.listen(0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP
