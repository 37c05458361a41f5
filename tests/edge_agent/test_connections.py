"""A real ``serinus-agent serve`` and applications that behave badly."""

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge_agent.client import AgentClient
from edge_agent.serving import frames
from edge_core.errors import Unavailable
from tests.simulators.processes import wait_for
from tests.simulators.tiny_bundle import tiny_bundle, tiny_rows

FILES = 64


class Served:
    """The agent's process and its socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.sock"
        bundle = tiny_bundle(folder / "bundle")
        arguments = [sys.executable, "-m", "edge_agent", "serve", str(bundle)]
        self.process = subprocess.Popen(
            [*arguments, "--socket", str(self.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("serving")
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))

    def answers(self) -> bool:
        try:
            with AgentClient(self.path, timeout=5) as client:
                return len(client.predict(tiny_rows(1)[0])) == 1
        except Unavailable:
            return False

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    try:
        yield made
    finally:
        assert "Traceback" not in made.stop()


def predict(request_id: int) -> bytes:
    samples = tiny_rows(1)[0].astype("<f4")
    return frames.encode(
        frames.Predict(id=request_id, shape=samples.shape, samples=samples.tobytes())
    )


def connect(served: Served) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20)
    peer.connect(str(served.path))
    return peer


def test_who_does_not_read_its_answers_is_no_longer_read(served: Served) -> None:
    assert served.answers()
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    sent = 0
    with connect(served) as greedy:
        greedy.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while sent < 200_000:  # some 30 MB of answers, were they all made
                greedy.sendall(b"".join(predict(sent + n) for n in range(1, 101)))
                sent += 100
        assert sent < 200_000
        assert served.answers()
        assert process.memory_info().rss - before < 8 * 2**20
        greedy.settimeout(20)
        assert greedy.recv(65536)  # and goes on where it reads again


def test_without_a_descriptor_left_others_are_turned_away_and_nothing_spins(
    served: Served,
) -> None:
    assert served.answers()
    peers = [connect(served) for _ in range(2 * FILES)]
    process = psutil.Process(served.process.pid)
    wait_for(lambda: turned_away(peers) > 0, seconds=10, what="a refused connection")
    began = process.cpu_times()
    time.sleep(1.0)
    ended = process.cpu_times()
    assert (ended.user + ended.system) - (began.user + began.system) < 0.5
    for peer in peers:
        peer.close()
    wait_for(served.answers, seconds=10, what="service")


def turned_away(peers: list[socket.socket]) -> int:
    count = 0
    for peer in peers:
        peer.setblocking(False)
        try:
            count += peer.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            pass
        except OSError:
            count += 1
    return count


def test_what_was_asked_before_the_end_is_answered(served: Served) -> None:
    with connect(served) as peer:
        peer.sendall(b"".join(predict(n) for n in range(1, 33)))
        data = peer.recv(1)  # the agent has begun to answer
        served.process.send_signal(signal.SIGTERM)
        while part := peer.recv(65536):
            data += part
    found = []
    while data:
        size = frames.HEADER.size + frames.frame_length(data[: frames.HEADER.size])
        found.append(frames.decode_response(data[frames.HEADER.size : size]))
        data = data[size:]
    assert {type(answer) for answer in found} == {frames.Answers}
    assert sorted(answer.id for answer in found) == list(range(1, 33))


def test_a_thousand_connections_leave_nothing_behind(served: Served) -> None:
    process = psutil.Process(served.process.pid)
    assert served.answers()
    before = process.num_fds()
    for number in range(1000):
        with connect(served) as peer:
            peer.sendall(b"\x05")
        if number % 50 == 0:
            assert served.answers()
    wait_for(lambda: process.num_fds() <= before, seconds=10, what="closed descriptors")
    assert served.answers()
