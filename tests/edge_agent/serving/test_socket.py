import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving import frames, socket
from edge_agent.serving.engine import Engine
from edge_agent.serving.frames import (
    Answers,
    Failure,
    Predict,
    PredictShared,
    Push,
    Status,
    StatusAnswer,
)
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.shared_memory import SharedRegions
from edge_core.errors import InvalidConfiguration
from tests.simulators.tiny_bundle import tiny_rows

pytestmark = pytest.mark.anyio


class Line:
    """A bare connection: bytes in, frames out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> frames.Response:
        async with asyncio.timeout(10):
            header = await self._reader.readexactly(frames.HEADER.size)
            return frames.decode_response(
                await self._reader.readexactly(frames.frame_length(header))
            )

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            return await self._reader.read(1) == b""

    def close(self) -> None:
        self._writer.close()


class Agent:
    """A served socket and the lines to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Line] = []

    async def line(self) -> Line:
        line = Line(*await asyncio.open_unix_connection(str(self.path)))
        self._lines.append(line)
        return line

    def close(self) -> None:
        for line in self._lines:
            line.close()


@asynccontextmanager
async def agent(
    path: Path,
    release: LoadedRelease,
    monitor: Monitor,
    max_queue_rows: int = 4096,
    status: socket.StatusSource = lambda: {"device": "d1"},
) -> AsyncIterator[Agent]:
    engine = Engine(monitor, slices={}, max_queue_rows=max_queue_rows, now_us=lambda: 0)
    engine.set_active(release, "incumbent", None)
    server = await socket.listen(path, engine, status)
    served = Agent(path)
    try:
        yield served
    finally:
        served.close()
        server.close()
        await engine.close()


def predict(request_id: int, samples: np.ndarray) -> bytes:
    return frames.encode(
        Predict(id=request_id, shape=samples.shape, samples=samples.astype("<f4").tobytes())
    )


def framed(body: bytes) -> bytes:
    return frames.HEADER.pack(len(body)) + body


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


async def test_pipelined_requests_are_all_answered(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    samples, _ = tiny_rows(100)
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(b"".join(predict(n, row[None]) for n, row in enumerate(samples, start=1)))
        answers = [await line.receive() for _ in samples]
    assert sorted(answer.id for answer in answers) == list(range(1, 101))
    assert all(isinstance(answer, Answers) for answer in answers)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
async def test_frames_may_arrive_in_any_pieces(
    path: Path, release: LoadedRelease, monitor: Monitor, size: int
) -> None:
    data = predict(1, tiny_rows(2)[0]) + frames.encode(Status(id=2))
    async with agent(path, release, monitor) as served:
        line = await served.line()
        for start in range(0, len(data), size):
            await line.send(data[start : start + size])
            await asyncio.sleep(0)
        answers = {answer.id: answer for answer in (await line.receive(), await line.receive())}
    assert isinstance(answers[1], Answers)
    assert answers[2] == StatusAnswer(id=2, status={"device": "d1"})


async def test_a_frame_larger_than_the_buffer_is_read_whole(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    samples, _ = tiny_rows(1000)
    async with agent(path, release, monitor) as served:
        line = await served.line()
        for number in (1, 2):
            await line.send(predict(number, samples) + frames.encode(Status(id=9)))
            answers = [await line.receive(), await line.receive()]
            (large,) = [answer for answer in answers if isinstance(answer, Answers)]
            assert len(large.predictions) == 1000


@pytest.mark.parametrize(
    ("body", "request_id", "text"),
    [
        (b"", 0, "not a request"),
        (b"\xc1" * 40, 0, "not a request"),
        (bytes(range(256)), 0, "not a request"),
        (msgspec.msgpack.encode(["dance", 5]), 5, "dance"),
        (msgspec.msgpack.encode(["predict", 6]), 6, "at least"),
        (msgspec.msgpack.encode(["predict", 7, [1, 8, 2], "text"]), 7, "Expected `bytes`"),
        (b"\x91" * 5000 + b"\x90", 0, "not a request"),
    ],
)
async def test_a_malformed_frame_gets_one_error_and_the_connection_goes_on(
    path: Path, release: LoadedRelease, monitor: Monitor, body: bytes, request_id: int, text: str
) -> None:
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(framed(body) + predict(8, tiny_rows(1)[0]))
        failure, answer = await line.receive(), await line.receive()
    assert isinstance(failure, Failure)
    assert (failure.id, failure.kind) == (request_id, "InvalidMessage")
    assert text in failure.message
    assert "Traceback" not in failure.message
    assert isinstance(answer, Answers)


async def test_bad_rows_get_one_error_each(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    nan = np.full((1, 8, 2), np.nan)
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(predict(1, nan) + predict(2, np.zeros((1, 8, 3))))
        await line.send(frames.encode(Push(id=3, stream="s", times_us=b"", samples=b"")))
        failures = [await line.receive() for _ in range(3)]
    assert {failure.id for failure in failures} == {1, 2, 3}
    assert {failure.kind for failure in failures if isinstance(failure, Failure)} == {
        "InvalidInput"
    }


async def test_an_oversize_frame_is_refused_and_skipped(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    size = frames.MAX_FRAME_BYTES + 1
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(predict(1, tiny_rows(1)[0]) + frames.HEADER.pack(size))
        first, refused = await line.receive(), await line.receive()
        if isinstance(first, Failure):
            first, refused = refused, first
        assert isinstance(first, Answers)
        assert isinstance(refused, Failure)
        assert f"frame of {size} bytes; the limit is" in refused.message
        await line.send(bytes(size) + predict(2, tiny_rows(1)[0]))
        assert isinstance(await line.receive(), Answers)


async def test_bytes_that_are_no_frames_end_only_their_connection(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    async with agent(path, release, monitor) as served:
        good, bad = await served.line(), await served.line()
        await bad.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        failure = await bad.receive()
        assert isinstance(failure, Failure)
        assert "the limit is" in failure.message
        assert await bad.ended()
        await good.send(predict(1, tiny_rows(1)[0]))
        assert isinstance(await good.receive(), Answers)


async def test_what_was_asked_before_noise_is_answered(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    asked = [predict(number, tiny_rows(1)[0]) for number in range(1, 101)]
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(b"".join(asked) + b"\xff" * 64)
        answers = [await line.receive() for _ in range(101)]
        assert await line.ended()
    assert [answer.id for answer in answers if isinstance(answer, Answers)] == list(range(1, 101))
    assert isinstance(answers[-1], Failure)


async def test_answers_before_noise_wait_for_a_slow_reader(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    import socket as sockets

    asked = b"".join(predict(number, tiny_rows(40)[0]) for number in range(1, 41))
    async with agent(path, release, monitor) as served:
        with sockets.socket(sockets.AF_UNIX) as peer:
            peer.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            peer.settimeout(10)
            peer.connect(str(served.path))
            await asyncio.to_thread(peer.sendall, asked + b"\xff" * 64)
            await asyncio.sleep(0.3)  # more is answered than the kernel holds for the reader
            data = bytearray()
            while part := await asyncio.to_thread(peer.recv, 65536):
                data += part
    found = []
    while data:
        size = frames.HEADER.size + frames.frame_length(data[: frames.HEADER.size])
        found.append(frames.decode_response(data[frames.HEADER.size : size]))
        del data[:size]
    assert [answer.id for answer in found] == [*range(1, 41), 0]


async def test_a_status_that_cannot_be_told_is_a_failure(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    def broken() -> dict[str, str | int | float | bool | None]:
        raise KeyError("outbox")

    async with agent(path, release, monitor, status=broken) as served:
        line = await served.line()
        await line.send(frames.encode(Status(id=4)) + predict(5, tiny_rows(1)[0]))
        answers = {answer.id: answer for answer in (await line.receive(), await line.receive())}
    assert isinstance(answers[4], Failure)
    assert answers[4].kind == "Unavailable"
    assert isinstance(answers[5], Answers)


async def test_status_requests_do_not_pile_up(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(b"".join(frames.encode(Status(id=number)) for number in range(1, 2001)))
        answers = [await line.receive() for _ in range(2000)]
        refused = [answer for answer in answers if isinstance(answer, Failure)]
        assert {failure.kind for failure in refused} == {"Overloaded"}
        assert any(isinstance(answer, StatusAnswer) for answer in answers)
        await line.send(frames.encode(Status(id=1)))
        assert isinstance(await line.receive(), StatusAnswer)


async def test_no_shared_memory_is_copied_for_windows_that_do_not_fit(
    path: Path, release: LoadedRelease, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[object] = []
    monkeypatch.setattr(SharedRegions, "windows", lambda *_: copied.append(1))  # may have 256 MiB
    async with agent(path, release, monitor) as served:
        line = await served.line()
        shared = PredictShared(id=1, region=1, offset=0, shape=(1, 1, 2**26))
        await line.send(frames.encode(shared))
        failure = await line.receive()
    assert isinstance(failure, Failure)
    assert "needed is [batch, 8, 2]" in failure.message
    assert not copied


async def test_a_defect_costs_one_request_only(
    path: Path, release: LoadedRelease, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")  # of ours: no input is known that causes one

    monkeypatch.setattr(frames, "samples_of", broken)
    push = frames.encode(Push(id=2, stream="s", times_us=b"", samples=b""))
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(predict(1, tiny_rows(1)[0]) + push + predict(3, tiny_rows(1)[0]))
        answers = {answer.id: answer for answer in [await line.receive() for _ in range(3)]}
    assert isinstance(answers[1], Answers)
    assert isinstance(answers[2], Failure)
    assert isinstance(answers[3], Answers)


async def test_overload_is_said_and_passes(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    samples, _ = tiny_rows(8)
    async with agent(path, release, monitor, max_queue_rows=8) as served:
        line = await served.line()
        await line.send(predict(1, samples) + predict(2, samples))
        answers = {answer.id: answer for answer in (await line.receive(), await line.receive())}
        assert isinstance(answers[1], Answers)
        assert isinstance(answers[2], Failure)
        assert answers[2].kind == "Overloaded"
        await line.send(predict(3, samples))
        assert isinstance(await line.receive(), Answers)


async def test_a_client_that_leaves_early_harms_nobody(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    async with agent(path, release, monitor) as served:
        gone, stays = await served.line(), await served.line()
        await gone.send(predict(1, tiny_rows(200)[0]))
        gone.close()
        await stays.send(predict(2, tiny_rows(1)[0]))
        assert isinstance(await stays.receive(), Answers)


async def test_a_socket_in_use_is_not_taken(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    async with agent(path, release, monitor):
        with pytest.raises(InvalidConfiguration, match="another process serves on"):
            async with agent(path, release, monitor):
                pass


async def test_a_socket_left_by_a_killed_agent_is_replaced(
    path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as left:
        left.bind(str(path))
    async with agent(path, release, monitor) as served:
        line = await served.line()
        await line.send(frames.encode(Status(id=1)))
        assert isinstance(await line.receive(), StatusAnswer)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_an_impossible_path_is_named(
    tmp_path: Path, release: LoadedRelease, monitor: Monitor
) -> None:
    path = tmp_path / ("x" * 120)
    with pytest.raises(InvalidConfiguration, match=r"cannot serve on .*\[serving\] socket"):
        async with agent(path, release, monitor):
            pass
