"""Real brokers: started, ended with their server, and never in the way of the next one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from edge_core.errors import InvalidConfiguration
from fleet_server.broker.process import PLACES, Broker
from fleet_server.config import MqttConfig
from tests.simulators.processes import free_port, wait_for

HAS_MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path=":".join(PLACES))
KINDS = [
    pytest.param(
        "mosquitto", marks=pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")
    ),
    "embedded",
]

KEEP_A_BROKER = """
import sys, time
from pathlib import Path
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
Broker(MqttConfig(port=int(sys.argv[1]), broker=sys.argv[3]), Path(sys.argv[2])).start()
print("up", flush=True)
time.sleep(600)
"""


def answers(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("kind", KINDS)
def test_it_listens_on_loopback_only_and_ends(
    tmp_path: Path, kind: Literal["mosquitto", "embedded"]
) -> None:
    port = free_port()
    broker = Broker(MqttConfig(port=port, broker=kind), tmp_path).start()
    try:
        assert answers(port)
        assert not answers(port, "127.0.0.2")
        assert kind in broker.description
    finally:
        broker.stop()
    assert not answers(port)


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_when_its_server_is_killed(tmp_path: Path, kind: str) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", KEEP_A_BROKER, str(port), str(tmp_path), kind],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    server.kill()
    server.wait()
    server.stdout.close()
    wait_for(lambda: not answers(port), seconds=10, what="the broker to end")


@pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")
def test_an_orphan_is_ended_before_the_port_is_taken(tmp_path: Path) -> None:
    port = free_port()
    config = MqttConfig(port=port, broker="mosquitto")
    Broker(config, tmp_path).start().stop()  # leaves the folder and its mosquitto.conf
    started = subprocess.run(
        ["sh", "-c", 'exec >/dev/null; "$0" -c "$1" & echo $! >"$2"', str(HAS_MOSQUITTO)]
        + [str(tmp_path / "broker" / name) for name in ("mosquitto.conf", "broker.pid")],
        check=False,
    )
    assert started.returncode == 0
    orphan = int((tmp_path / "broker" / "broker.pid").read_text())
    wait_for(lambda: answers(port), seconds=10, what="the orphan")
    broker = Broker(config, tmp_path).start()
    try:
        assert int((tmp_path / "broker" / "broker.pid").read_text()) != orphan
        wait_for(lambda: not is_running(orphan), seconds=10, what="the end of the orphan")
        assert answers(port)
    finally:
        broker.stop()


def test_a_pid_file_that_names_a_stranger_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "broker.pid").write_text(str(os.getpid()))
    broker = Broker(MqttConfig(port=free_port(), broker="embedded"), tmp_path).start()
    broker.stop()


def test_a_broker_that_dies_is_started_again(tmp_path: Path) -> None:
    port = free_port()
    broker = Broker(MqttConfig(port=port, broker="embedded"), tmp_path).start()
    try:
        os.kill(int((tmp_path / "broker" / "broker.pid").read_text()), signal.SIGKILL)
        wait_for(lambda: not answers(port), seconds=10, what="the broker to die")
        wait_for(lambda: answers(port), seconds=15, what="a new broker")
    finally:
        broker.stop()


def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfiguration, match=f"MQTT port {port} is in use") as refused:
            Broker(MqttConfig(port=port), tmp_path).start()
    assert "\n" not in str(refused.value)
