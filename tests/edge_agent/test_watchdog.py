"""Signs of life: heartbeats, what ends a stuck process, what a supervisor is told."""

import socket
import threading
from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent.config import Supervision
from edge_agent.heartbeat import Heartbeat
from edge_agent.supervisor import MAX_STATUS, Supervisor
from edge_agent.watchdog import Watchdog
from tests.edge_agent.test_agent import settings
from tests.simulators.processes import Process, command, wait_for


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_work_that_does_not_go_on_is_stuck() -> None:
    clock = Seconds()
    heart = Heartbeat("it", monotonic=clock)
    dog = Watchdog([Heartbeat("another"), heart], 5.0)
    clock.now = 100.0
    assert dog.stuck() == ""  # idle
    with heart:
        clock.now += 4
        heart.beat()
        clock.now += 4
        assert dog.stuck() == ""
        clock.now += 2
        assert dog.stuck() == "it does not answer for 6 s"
    assert dog.stuck() == ""
    heart.beat()  # without work it means nothing
    clock.now += 100
    assert dog.stuck() == ""


def test_a_stuck_thread_ends_the_process_and_an_idle_one_does_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ended = threading.Event()
    heart = Heartbeat("the thread")
    dog = Watchdog([heart], 0.4, end=ended.set)
    dog.start()
    assert not ended.wait(1.0)
    heart.busy()
    assert ended.wait(5.0)
    dog.stop()
    assert "the thread does not answer" in capfd.readouterr().err


@pytest.fixture
def supervised(tmp_path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(20)
    return listener


def test_a_supervisor_is_told_over_a_real_socket(tmp_path: Path, supervised: socket.socket) -> None:
    with supervised:
        told = Supervisor(Supervision(address=str(tmp_path / "notify"), watchdog_seconds=30.0))
        assert told.pause_seconds == 10.0
        told.ready()
        told.alive("committed: m@1.0.0 serves")
        told.alive("committed: m@1.0.0 serves")
        told.alive("two\nlines" + "x" * 1000)
        told.stopping()
        got = [supervised.recv(4096).decode() for _ in range(5)]
    assert got[:3] == ["READY=1", "WATCHDOG=1\nSTATUS=committed: m@1.0.0 serves", "WATCHDOG=1"]
    assert got[3].startswith("WATCHDOG=1\nSTATUS=two?linesxxx")
    assert len(got[3]) == len("WATCHDOG=1\nSTATUS=") + MAX_STATUS
    assert got[4] == "STOPPING=1"


def test_an_abstract_name_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0serinus-notify-test")
        Supervisor(Supervision(address="@serinus-notify-test")).ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "/nonexistent/notify", "/" + "x" * 300])
def test_a_supervisor_that_does_not_listen_is_no_trouble(address: str | None) -> None:
    Supervisor(Supervision(address=address)).ready()


def test_what_the_supervisor_passes_on_is_read_and_odd_values_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert configs.supervision() == Supervision(address="/run/notify")  # for another process
    monkeypatch.delenv("WATCHDOG_PID")
    assert configs.supervision() == Supervision(address="/run/notify", watchdog_seconds=30.0)
    for odd in ("", "0", "-1", "soon", "\u0663"):
        monkeypatch.setenv("WATCHDOG_USEC", odd)
        assert configs.supervision().watchdog_seconds is None
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:1:2")
    assert configs.supervision().address is None


def test_the_agent_itself_says_when_it_is_ready_that_it_lives_and_that_it_stops(
    tmp_path: Path, supervised: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    assert config.repository is not None
    (tmp_path / "agent.toml").write_text(
        f'device = "d"\ntarget = "{config.target}"\nstate_dir = "state"\n'
        f'[repository]\nurl = "http://127.0.0.1:9"\ntrusted_root = "root.json"\n'
        '[mqtt]\nhost = "127.0.0.1"\nport = 9\n[serving]\nsocket = "agent.sock"\n'
    )
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    arguments = [*command("serinus-agent"), "run", "--config", str(tmp_path / "agent.toml")]
    with supervised, Process(arguments, tmp_path / "log") as agent:
        got: list[str] = []

        def seen(*needed: str) -> bool:
            got.append(supervised.recv(4096).decode())
            return set(needed) <= {line for text in got for line in text.splitlines()}

        wait_for(lambda: seen("READY=1", "WATCHDOG=1"), seconds=20, what="signs of life")
        status = "STATUS=idle: no release serves"
        wait_for(lambda: status in "".join(got) or seen(status), seconds=20, what="the status")
        assert agent.stop() == 0
        wait_for(lambda: seen("STOPPING=1"), seconds=20, what="the last word")
