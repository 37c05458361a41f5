"""The MQTT broker beside the server: mosquitto where it is found, else an embedded one."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal, Self

from edge_core import durable
from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.broker import files
from fleet_server.broker.files import BrokerTls
from fleet_server.config import MqttConfig

PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
START_SECONDS = 10.0
END_SECONDS = 5.0
WATCH_SECONDS = 0.5
SETTLED_SECONDS = 600.0
"""After which a broker that ends is started again at once."""
MOST_PAUSE_SECONDS = 60.0


class Broker:
    """A broker in a child process that ends with the server and is started again if it dies.

    The child's number is kept in a file, so that a child that outlived a killed server is ended
    before a new one takes the port.
    """

    def __init__(self, config: MqttConfig, data: Path, tls: BrokerTls | None = None) -> None:
        """Choose the broker; with ``tls`` it lets in who has a certificate, and nobody else."""
        self._config = config
        self.tls = tls
        self._folder = (data / "broker").absolute()
        self._pid_file = self._folder / "broker.pid"
        self._child: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._started = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._supervise, name="broker", daemon=True)
        self.kind, self._program = _choose(config)

    @property
    def description(self) -> str:
        """Which broker it is and where, for people."""
        place = f"{self._config.host}:{self._config.port}"
        if self.kind == "mosquitto":
            who = "with certificates" if self.tls else "on loopback"
            return f"mosquitto ({self._program}) on {place}, {who}"
        if self.kind == "embedded":
            return f"embedded iotcore on {place}, for a first look; install mosquitto for more"
        return f"external at {place}"

    def start(self) -> Self:
        """Start it and wait until it takes connections; nothing to do for an external one.

        Raises:
            InvalidConfiguration: the port is taken by somebody else.
            Unavailable: the broker did not come up.
        """
        if self.kind == "external":
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._end_orphan()
        if self._answers():
            raise InvalidConfiguration(
                f"MQTT port {self._config.port} is in use: stop what listens there, set "
                "mqtt.port to a free one, or mqtt.broker = 'external' to use that broker"
            )
        self._thread.start()  # the child ends when the thread that started it does
        self._started.wait()
        if self._problem is not None:
            raise self._problem
        return self

    def stop(self) -> None:
        """End the child, letting it save what it holds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(START_SECONDS + END_SECONDS)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder

    def reload(self) -> None:
        """Let it read certificates, revocations and access rules anew; connections stay."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """End it; it is started again at once, and every client connects anew."""
        if self._child is not None:
            _end(self._child)

    def _answers(self) -> bool:
        place = (self._config.reached_at, self._config.port)
        with contextlib.suppress(OSError), socket.create_connection(place, timeout=0.5):
            return True
        return False

    def _supervise(self) -> None:
        try:
            self._spawn()
        except (OSError, Unavailable) as error:
            self._problem = error
        self._started.set()
        if self._problem is None:
            self._watch()
        if self._child is not None:
            _end(self._child)
            self._pid_file.unlink(missing_ok=True)

    def _watch(self) -> None:
        """Start the broker again whenever it ends by itself, after ever longer pauses."""
        ends, started = 0, time.monotonic()
        while not self._stop.wait(WATCH_SECONDS):
            if self._child is None or self._child.poll() is None:
                continue
            ends = 0 if time.monotonic() - started > SETTLED_SECONDS else ends + 1
            pause = min(MOST_PAUSE_SECONDS, WATCH_SECONDS * 2**ends)
            print(
                f"broker: ended with {self._child.returncode}, starting it again in {pause:.3g} s",
                file=sys.stderr,
                flush=True,
            )
            if self._stop.wait(pause):
                return
            started = time.monotonic()
            with contextlib.suppress(OSError, Unavailable):
                self._spawn()

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "fleet_server.broker.child", str(os.getpid())]
        if self.kind == "mosquitto":
            config = files.write_mosquitto(self._folder, self._config, self.tls)
            command += ["mosquitto", str(self._program), str(config)]
        else:
            config = files.write_embedded(self._folder, self._config)
            command += ["embedded", str(config)]
        with (self._folder / "output.log").open("ab") as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        durable.write_bytes(self._pid_file, f"{self._child.pid}\n".encode())
        self._wait_until_it_answers(self._child)

    def _wait_until_it_answers(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if child.poll() is not None:
                raise Unavailable(
                    f"the {self.kind} broker ended at once with code {child.returncode}; see "
                    f"{self._folder}/output.log and mosquitto.log there"
                )
            if time.monotonic() > deadline:
                _end(child)
                raise Unavailable(
                    f"the {self.kind} broker took no connection for {START_SECONDS:g} s"
                )
            time.sleep(0.02)

    def _end_orphan(self) -> None:
        """End a broker that a killed server of this data folder left behind."""
        try:
            pid = int(self._pid_file.read_text())
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if str(self._folder).encode() not in line:
            return  # the number belongs to another program by now
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + END_SECONDS
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)


def _choose(config: MqttConfig) -> tuple[Literal["mosquitto", "embedded", "external"], str | None]:
    if config.broker == "external":
        return "external", None
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(PLACES))
    if config.broker == "mosquitto" and program is None:
        raise InvalidConfiguration(
            "mqtt.broker = 'mosquitto', but no mosquitto is on the PATH or in "
            f"{', '.join(PLACES)}: install it, or set mqtt.broker = 'embedded'"
        )
    if config.tls and program is None:
        raise InvalidConfiguration("mqtt.tls needs mosquitto: install it, or leave mqtt.tls out")
    if config.broker == "embedded" or program is None:
        return "embedded", None
    return "mosquitto", program


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
