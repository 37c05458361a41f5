"""Servers under measurement: started, asked for a first answer, watched, stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-peers"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.002
WARM_UP_SECONDS = 1.0
"""As in ``load.py``."""


BEGIN = signal.SIGUSR1
"""Tells a profiled agent that the load begins."""


class CannotStart(Exception):
    """A server did not come up; the text says why."""


class Usage(NamedTuple):
    """What a server and all its children take."""

    cpu_seconds: float
    megabytes: float
    """Proportional set size: what several processes share counts in parts."""
    alone: float
    """Resident set size, MB: what one process would take if it were the only one of its kind."""


class Server:
    """One server with all its processes."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, cwd: Path, environment: dict[str, str]
    ) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._cwd = cwd
        self._environment = environment
        self._log = tempfile.NamedTemporaryFile("w+b")  # noqa: SIM115  # closed at exit
        self._process: subprocess.Popen[bytes] | None = None
        self.start_seconds = 0.0
        """From the start of the process to its first answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    def start(self, first_answer: Callable[[], bool]) -> None:
        """Start it and ask until it answers; raise :class:`CannotStart`."""
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._arguments,
            cwd=self._cwd,
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children end with it, and with nothing else
        )
        while not first_answer():
            if self._process.poll() is not None:
                raise CannotStart(f"it ended with {self._process.returncode}: {self._last_line()}")
            if time.perf_counter() - began > START_SECONDS:
                raise CannotStart(f"no answer within {START_SECONDS:.0f} s: {self._last_line()}")
            time.sleep(POLL_SECONDS)
        self.start_seconds = time.perf_counter() - began

    def usage(self) -> Usage:
        """CPU time so far and memory now, of all its processes."""
        assert self._process is not None
        whole = psutil.Process(self._process.pid)
        cpu = memory = alone = 0.0
        for process in [whole, *whole.children(recursive=True)]:
            try:
                times, held = process.cpu_times(), process.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            cpu += times.user + times.system
            memory += held.pss / 1e6
            alone += held.rss / 1e6
        return Usage(cpu, memory, alone)

    def tell(self, number: signal.Signals) -> None:
        """Send its first process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End all its processes."""
        process = self._process
        if process is None:
            return
        self._process = None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def _last_line(self) -> str:
        self._log.flush()
        text = Path(self._log.name).read_text(errors="replace").strip()
        return text.splitlines()[-1][:300] if text else "it said nothing"

    def output(self) -> str:
        """Everything that it printed."""
        return Path(self._log.name).read_text(errors="replace")


def agent(
    bundle: Path, path: Path, *, target: str, rest_port: int = 0, profile: Path | None = None
) -> Server:
    """``serinus-agent serve``, as a person starts it."""
    start = ["-m", "edge_agent"]
    if profile is not None:
        start = [str(HERE / "profiled_agent.py"), str(profile)]
    arguments = [*start, "serve", str(bundle), "--socket", str(path), "--target", target]
    if rest_port:
        arguments += ["--rest-port", str(rest_port)]
    return Server("serinus-agent", [sys.executable, *arguments], cwd=ROOT, environment={})


class Peer(NamedTuple):
    """A peer and how it is asked."""

    name: str
    environment: str
    """Folder of its environment, and file of its pins."""
    path: str
    """Where it answers over HTTP."""
    arguments: Callable[[str, int, Path], list[str]]
    """From its Python, its port and a folder for its settings."""


def _mlserver(python: str, port: int, folder: Path) -> list[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,  # else each request goes through two queues to a second process
        "debug": False,
        "use_structured_logging": False,
    }
    model = {"name": "watch-activity", "implementation": "mlserver_model.Peer"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [str(Path(python).with_name("mlserver")), "start", str(folder)]


def _bentoml(python: str, port: int, folder: Path) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(HERE)]
    return [python, "-m", "bentoml", "serve", "bentoml_service:Peer", *where]


def _script(name: str) -> Callable[[str, int, Path], list[str]]:
    return lambda python, port, _: [python, str(HERE / name), str(port)]


PEERS = (
    Peer("MLServer", "mlserver", "/v2/models/watch-activity/infer", _mlserver),
    Peer("BentoML", "bentoml", "/predict", _bentoml),
    Peer("LitServe", "litserve", "/predict", _script("litserve_server.py")),
    Peer("bare ASGI", "asgi", "/", _script("asgi_app.py")),
)


def peer_server(peer: Peer, bundle: Path, port: int, folder: Path) -> Server:
    """The peer in its environment; raise :class:`CannotStart` where that is not there."""
    environment = ENVIRONMENTS / peer.environment
    if not (environment / ".installed").is_file():
        reason = environment / "failed"
        said = reason.read_text().strip() if reason.is_file() else "run make bench BENCH=serving"
        raise CannotStart(f"not installed: {said}")
    python = str(environment / "bin" / "python")
    return Server(
        peer.name,
        peer.arguments(python, port, folder),
        cwd=folder,
        environment={
            "BENCH_BUNDLE": str(bundle),
            "PYTHONPATH": str(HERE),
            "PATH": f"{environment / 'bin'}:{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
            "BENTOML_DO_NOT_TRACK": "True",
        },
    )


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def http_request(path: str, body: bytes, raw: bytes = b"") -> bytes:
    """A whole keep-alive request; ``raw`` are the tensors' bytes that follow the JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body) + len(raw)}\r\n"
    )
    if raw:
        head += f"inference-header-content-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body + raw


def http_answers(port: int, request: bytes) -> bool:
    """Whether the server answers this request with 200 now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def socket_answers(path: Path, frame: bytes) -> bool:
    """Whether an agent answers this frame now."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(frame)
            return b"answers" in connection.recv(65536)[:16]
    except OSError:
        return False


def load(kind: str, place: str, requests: Path, *more: float) -> dict[str, Any]:
    """Let the load's process ask; raise :class:`CannotStart` where answers were wrong."""
    arguments = [kind, place, str(requests), *(f"{number:g}" for number in more)]
    done = subprocess.run(
        [sys.executable, "-I", str(HERE / "load.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CannotStart(f"the load ended: {said[-1] if said else done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["wrong"]:
        raise CannotStart(f"{result['wrong']} of {result['answers']} answers were wrong")
    return result
