"""How fast, how small and how soon does the agent answer, beside the model itself and its peers?

``python benchmarks/serving.py [--bundle FOLDER] [--seconds N] [--profile]`` prints a table and
writes ``build/bench/serving.json``. Without a bundle it builds watch_activity 1.1.0 once.

- Socket: beside onnxruntime called directly, with the features and without, on the same rows.
- REST: beside MLServer, BentoML, LitServe and a bare ASGI application, each a real server with one
  worker, given the same body and doing the same work (features and model). ``make bench
  BENCH=serving`` installs them; one that is missing or does not start is named with the reason.
- Memory (proportional set size after the load, all processes) and the time from the start of the
  process to the first answer, with onnxruntime and with LiteRT.

Agent and load are processes of their own on the same cores; the agent counts statistics and
remembers predictions as in a fleet. A goal of the socket that is missed comes with a profile.
"""

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  # the repository's root has to be on the path first
import numpy.typing as npt  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.serving_peers import processes  # noqa: E402
from benchmarks.serving_peers.processes import PEERS, CannotStart, Server  # noqa: E402
from edge_agent.serving import frames  # noqa: E402
from edge_core.bundle import folder as folders  # noqa: E402
from edge_core.bundle import golden as goldens  # noqa: E402
from edge_core.bundle import manifest as manifests  # noqa: E402
from edge_core.features import definition as definitions  # noqa: E402

Float32 = npt.NDArray[np.float32]
Row = dict[str, Any]

ORT, LITERT = "cpu-x86_64-ort", "cpu-x86_64-tflite"
CONNECTIONS = 64
PIPES, IN_FLIGHT = 4, 32
BATCH = 64
HTTP_CONNECTIONS = 16
DIFFERENT_ROWS = 64
STARTS = 3
CPU_A_ROW = "  agent's CPU time a row"
BUSY = 0.7
"""Load average from which on other programs are in the way of what is measured."""
OUT = ROOT / "build" / "bench"

GOAL_RATE = 50_000.0
GOAL_SHARE = 0.6
GOAL_OVERHEAD_US = 100.0
GOAL_OVER_MLSERVER = 8.0
GOAL_START_SECONDS = 1.0
GOAL_MB = {ORT: 80.0, LITERT: 60.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help=f"bundle with variants for {ORT} and {LITERT}")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--profile", action="store_true", help="profile the agent in any case")
    parser.add_argument("--no-peers", action="store_true", help="leave the other servers out")
    options = parser.parse_args()
    bundle = (options.bundle or default_bundle()).resolve()
    with tempfile.TemporaryDirectory() as folder:
        report(Benchmark(bundle, Path(folder), options.seconds), options)


class Benchmark:
    """One bundle, its rows, and the requests made of them."""

    def __init__(self, bundle: Path, folder: Path, seconds: float) -> None:
        self.bundle = bundle
        self.folder = folder
        self.seconds = seconds
        self.manifest = folders.read(bundle)
        definition = definitions.parse((bundle / manifests.FEATURES).read_bytes())
        golden = goldens.unpack((bundle / manifests.GOLDEN).read_bytes())
        raw = goldens.samples(definition, golden.raw)
        self.features = len(definition.feature_names)
        self.windows: Float32 = np.resize(raw, (DIFFERENT_ROWS, *raw.shape[1:])).astype("<f4")
        rows = range(DIFFERENT_ROWS)
        self.single = self._kept("single", [self._frame(self.windows[n : n + 1]) for n in rows])
        self.batch = self._kept("batch", [self._frame(self.windows)] * 2)

    def _frame(self, windows: Float32) -> bytes:
        batch, samples, inputs = windows.shape
        shape = (batch, samples, inputs)
        return frames.encode(frames.Predict(id=1, shape=shape, samples=windows.tobytes()))

    def body(self, row: int) -> bytes:
        """One window as the Open Inference Protocol has it; the peers parse the same bytes."""
        tensor = {"name": "samples", "datatype": "FP32", "shape": [1, *self.windows.shape[1:]]}
        data = self.windows[row].ravel().tolist()
        return json.dumps({"inputs": [{**tensor, "data": data}]}).encode()

    def http(self, name: str, path: str) -> Path:
        """Whole HTTP requests for a server's path."""
        made = [processes.http_request(path, self.body(row)) for row in range(DIFFERENT_ROWS)]
        return self._kept(name, made)

    def raw_http(self, path: str) -> Path:
        """The same rows as raw bytes behind the JSON, as ``tritonclient`` sends them."""
        made = []
        for row in range(DIFFERENT_ROWS):
            raw = self.windows[row].tobytes()
            tensor = {"name": "samples", "datatype": "FP32", "shape": [1, *self.windows.shape[1:]]}
            body = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
            made.append(processes.http_request(path, json.dumps(body).encode(), raw))
        return self._kept("raw", made)

    def _kept(self, name: str, requests: list[bytes]) -> Path:
        path = self.folder / name
        path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in requests))
        return path

    def has(self, target: str) -> bool:
        """Whether the bundle has a variant for the target."""
        return any(variant.target == target for variant in self.manifest.variants)


# The model without a server.


def direct(benchmark: Benchmark) -> dict[str, float]:
    """Rows per second of the same model file, without any of our serving."""
    script = str(ROOT / "benchmarks" / "serving_peers" / "direct.py")
    arguments = [script, str(benchmark.bundle), ORT, f"{benchmark.seconds / 2:g}"]
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# The agent's socket.


def loaded(
    server: Server, kind: str, place: str, requests: Path, rows: int, *more: float
) -> dict[str, float]:
    """Load a server and add what it cost; ``rows`` are those of one request."""
    before = server.usage()
    began = time.perf_counter()
    found = processes.load(kind, place, requests, *more)
    elapsed = time.perf_counter() - began
    # The load's start and warm-up lie within this span, too: shares of it, not counts.
    cpu = server.usage().cpu_seconds - before.cpu_seconds
    asked = found["seconds"] + processes.WARM_UP_SECONDS
    found["rows_per_second"] = found["answers"] * rows / found["seconds"]
    found["cpu_us_per_row"] = cpu / asked / found["rows_per_second"] * 1e6
    found["load_cpu_us_per_row"] = found["load_cpu_us"] / rows
    found["cores_used"] = cpu / elapsed
    return found


def socket_rows(benchmark: Benchmark, model: dict[str, float]) -> list[Row]:
    """Every figure of the socket."""
    path = benchmark.folder / "agent.sock"
    seconds, place = benchmark.seconds, str(path)
    with processes.agent(benchmark.bundle, path, target=ORT) as server:
        start(server, benchmark, path)
        one = loaded(server, "socket", place, benchmark.single, 1, 1, 1, seconds)
        many = loaded(server, "socket", place, benchmark.single, 1, CONNECTIONS, 1, seconds)
        piped = loaded(server, "socket", place, benchmark.single, 1, PIPES, IN_FLIGHT, seconds)
        batches = loaded(server, "socket", place, benchmark.batch, BATCH, PIPES, 1, seconds)
    crowd = f"socket, {CONNECTIONS} connections, one row a request"
    alone = 1e6 / model["whole, one row"]
    apiece = {name: 1e6 / rate for name, rate in model.items()}
    features = apiece["whole, batch"] - apiece["run, batch"]
    whole = (f"features + run, {BATCH} rows", model["whole, batch"])
    return [
        row(crowd, many["rows_per_second"], "rows/s", goal=GOAL_RATE),
        row(crowd, many["rows_per_second"], "rows/s", whole, GOAL_SHARE, of_ratio=True),
        row(
            crowd,
            many["rows_per_second"],
            "rows/s",
            (f"run alone, {BATCH} rows", model["run, batch"]),
            GOAL_SHARE,
            of_ratio=True,
        ),
        row("  features alone, called directly", features, "us a row"),
        row("  model alone, called directly", apiece["run, batch"], "us a row"),
        row("  latency p50", many["p50_us"], "us"),
        row("  latency p99", many["p99_us"], "us"),
        row(CPU_A_ROW, many["cpu_us_per_row"], "us", ("features + run, one row", alone)),
        row("  rows/s of a core to itself", 1e6 / many["cpu_us_per_row"], "rows/s"),
        row("  load's CPU time a row", many["load_cpu_us_per_row"], "us"),
        row(
            "socket, one connection, p50 over the direct call",
            one["p50_us"] - alone,
            "us",
            ("features + run, one row", alone),
            GOAL_OVERHEAD_US,
            at_most=True,
        ),
        row("  latency p99", one["p99_us"], "us"),
        row(
            f"socket, {PIPES} connections, {IN_FLIGHT} requests in flight",
            piped["rows_per_second"],
            "rows/s",
            whole,
        ),
        row("  agent's CPU time a row", piped["cpu_us_per_row"], "us"),
        row("  load's CPU time a row", piped["load_cpu_us_per_row"], "us"),
        row(
            f"socket, {PIPES} connections, {BATCH} rows a request",
            batches["rows_per_second"],
            "rows/s",
            whole,
        ),
        row("  agent's CPU time a row", batches["cpu_us_per_row"], "us"),
        row("  load's CPU time a row", batches["load_cpu_us_per_row"], "us"),
    ]


def start(server: Server, benchmark: Benchmark, path: Path) -> None:
    frame = benchmark.single.read_bytes()
    (size,) = struct.unpack("<I", frame[:4])
    server.start(lambda: processes.socket_answers(path, frame[4 : 4 + size]))


# Start and memory.


def footprint(benchmark: Benchmark, target: str) -> list[Row]:
    """How soon the agent answers and what it holds after a load, with one runtime."""
    if not benchmark.has(target):
        raise CannotStart(f"the bundle has no variant for {target}")
    path = benchmark.folder / f"{target}.sock"
    starts = []
    for turn in range(STARTS):
        with processes.agent(benchmark.bundle, path, target=target) as server:
            start(server, benchmark, path)
            starts.append(server.start_seconds)
            if turn == STARTS - 1:
                fresh = server.usage()
                found = loaded(
                    server,
                    "socket",
                    str(path),
                    benchmark.single,
                    1,
                    CONNECTIONS,
                    1,
                    benchmark.seconds,
                )
                after = server.usage()
    name = "onnxruntime" if target == ORT else "LiteRT"
    return [
        row(
            f"agent with {name}: start to first answer",
            float(np.median(starts)),
            "s",
            goal=GOAL_START_SECONDS,
            at_most=True,
        ),
        row("  memory at first (PSS)", fresh.megabytes, "MB"),
        row(
            f"agent with {name}: memory after the load (PSS)",
            after.megabytes,
            "MB",
            goal=GOAL_MB[target],
            at_most=True,
        ),
        row("  if nothing else shared its libraries (RSS)", after.alone, "MB"),
        row(f"  socket, {CONNECTIONS} connections", found["rows_per_second"], "rows/s"),
    ]


# REST, beside the peers.


def rest_of_agent(benchmark: Benchmark) -> dict[str, float]:
    port, path = processes.free_port(), benchmark.folder / "rest.sock"
    model = benchmark.manifest.model
    return rest(
        benchmark,
        processes.agent(benchmark.bundle, path, target=ORT, rest_port=port),
        f"/v2/models/{model}/infer",
        port,
    )


def rest_of_peer(benchmark: Benchmark, peer: processes.Peer) -> dict[str, float]:
    port = processes.free_port()
    folder = benchmark.folder / peer.environment
    folder.mkdir()
    server = processes.peer_server(peer, benchmark.bundle, port, folder)
    return rest(benchmark, server, peer.path, port)


def rest(benchmark: Benchmark, server: Server, path: str, port: int) -> dict[str, float]:
    requests = benchmark.http(server.name, path)
    first = processes.http_request(path, benchmark.body(0))
    with server:
        server.start(lambda: processes.http_answers(port, first))
        found = loaded(server, "http", str(port), requests, 1, HTTP_CONNECTIONS, benchmark.seconds)
        if server.name == "serinus-agent":
            again = benchmark.raw_http(path)
            raw = loaded(server, "http", str(port), again, 1, HTTP_CONNECTIONS, benchmark.seconds)
            found["raw_per_second"] = raw["rows_per_second"]
            found["raw_cpu_us"] = raw["cpu_us_per_row"]
        return {
            **found,
            "start_seconds": server.start_seconds,
            "megabytes": server.usage().megabytes,
        }


def rest_rows(benchmark: Benchmark) -> list[Row]:
    """REST of the agent and of each peer that can be had."""
    mine = rest_of_agent(benchmark)
    rows = [
        row(f"REST, {HTTP_CONNECTIONS} connections", mine["rows_per_second"], "requests/s"),
        row("  latency p50", mine["p50_us"], "us"),
        row("  latency p99", mine["p99_us"], "us"),
        row("  agent's CPU time a request", mine["cpu_us_per_row"], "us"),
        row("  load's CPU time a request", mine["load_cpu_us_per_row"], "us"),
        row("  memory after the load", mine["megabytes"], "MB"),
    ]
    rates: dict[str, float] = {}
    for peer in PEERS:
        goal = GOAL_OVER_MLSERVER if peer.name == "MLServer" else None
        try:
            theirs = rest_of_peer(benchmark, peer)
        except CannotStart as error:
            rows.append(missing(f"REST beside {peer.name}", str(error), goal))
            continue
        rates[peer.name] = theirs["rows_per_second"]
        beside = (peer.name, theirs["rows_per_second"])
        rows += [
            row(
                f"REST beside {peer.name}",
                mine["rows_per_second"],
                "requests/s",
                beside,
                goal,
                of_ratio=True,
            ),
            row(
                "  rows as raw bytes, which this peer does not read",
                mine["raw_per_second"],
                "requests/s",
                beside,
            ),
            row("  latency p99", mine["p99_us"], "us", (peer.name, theirs["p99_us"])),
            row("  CPU time", mine["cpu_us_per_row"], "us", (peer.name, theirs["cpu_us_per_row"])),
            row("  memory", mine["megabytes"], "MB", (peer.name, theirs["megabytes"])),
            row("  start", mine["start_seconds"], "s", (peer.name, theirs["start_seconds"])),
        ]
    if {"MLServer", "bare ASGI"} <= rates.keys():
        # What is left to gain: this one parses the body and answers, and does nothing else.
        beside = ("MLServer", rates["MLServer"])
        rows.append(row("bare ASGI beside MLServer", rates["bare ASGI"], "requests/s", beside))
    return rows


# Why a goal was missed.


def profile(benchmark: Benchmark) -> dict[str, Any]:
    """Where the agent's CPU time goes at 64 connections, by stage and by function."""
    path, result = benchmark.folder / "profile.sock", benchmark.folder / "profile.json"
    with processes.agent(benchmark.bundle, path, target=ORT, profile=result) as server:
        start(server, benchmark, path)
        server.tell(processes.BEGIN)
        found = loaded(
            server, "socket", str(path), benchmark.single, 1, CONNECTIONS, 1, benchmark.seconds
        )
    seen = json.loads(result.read_text())
    whole = sum(seen["stages"].values())
    return {
        "rows_per_second": found["rows_per_second"],
        "cpu_us_per_row": found["cpu_us_per_row"],
        "cores_used": found["cores_used"],
        "load_cpu_us_per_row": found["load_cpu_us_per_row"],
        "stages": {name: count / whole for name, count in seen["stages"].items()},
        "functions": {name: count / whole for name, count in seen["functions"].items()},
    }


def show_profile(console: Console, found: dict[str, Any], cpu: float | None) -> None:
    """Shares by the profiler, of the CPU time a row that was measured without it."""
    if cpu is None:
        cpu = float(found["cpu_us_per_row"])
    title = (
        f"where the agent's CPU time goes at {CONNECTIONS} connections: {cpu:.1f} us a row, "
        f"{found['cpu_us_per_row']:.1f} us under the profiler"
    )
    table = Table("stage", "share", "about, a row", title=title)
    for name, share in sorted(found["stages"].items(), key=lambda entry: -entry[1]):
        table.add_row(name, f"{share:.1%}", f"{share * cpu:.1f} us")
    table.add_section()
    for name, share in list(found["functions"].items())[:12]:
        table.add_row(name, f"{share:.1%}", f"{share * cpu:.1f} us")
    console.print(table)


# The report.


def row(
    figure: str,
    value: float,
    unit: str,
    peer: tuple[str, float] | None = None,
    goal: float | None = None,
    *,
    at_most: bool = False,
    of_ratio: bool = False,
) -> Row:
    """One line of the report; the goal is for the value, or for the ratio to the peer."""
    ratio = None if peer is None else value / peer[1]
    judged = ratio if of_ratio and ratio is not None else value
    sign = "<=" if at_most else ">="
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "peer": None if peer is None else {"name": peer[0], "value": peer[1]},
        "ratio": ratio,
        "goal": None if goal is None else f"{'ratio ' if of_ratio else ''}{sign} {goal:,g}",
        "met": None if goal is None else (judged <= goal if at_most else judged >= goal),
    }


def missing(figure: str, reason: str, goal: float | None = None) -> Row:
    """A figure that could not be had, and why; a goal that nothing shows is not met."""
    return {
        "figure": figure,
        "value": None,
        "unit": "",
        "peer": None,
        "ratio": None,
        "goal": None if goal is None else f"{goal:,g}",
        "met": None if goal is None else False,
        "reason": reason,
    }


def default_bundle() -> Path:
    """Find the bundle of an earlier run, or build it."""
    bundle = OUT / "serving-bundle"
    if not (bundle / "manifest.json").is_file():
        recipe = ROOT / "firmware_bundles" / "watch_activity"
        arguments = ["build", str(recipe), "--release", "1.1.0", "--out", str(bundle)]
        arguments += ["--targets", f"{ORT},{LITERT}"]
        print("building watch_activity 1.1.0 (once) ...", flush=True)
        command = "import sys; from converters.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", command, *arguments], check=False, cwd=ROOT)
        if done.returncode:
            raise SystemExit("the bundle was not built; name another one with --bundle FOLDER")
    return bundle


def loop_ms() -> float:
    """Milliseconds of a fixed loop in pure Python: how fast this machine is just now."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        total = 0
        for number in range(200_000):
            total += number & 7
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def report(benchmark: Benchmark, options: argparse.Namespace) -> None:
    before, busy = loop_ms(), os.getloadavg()[0]
    sections: list[Callable[[], list[Row]]] = [
        lambda: socket_rows(benchmark, direct(benchmark)),
        lambda: footprint(benchmark, ORT),
        lambda: footprint(benchmark, LITERT),
    ]
    if not options.no_peers:
        sections.append(lambda: rest_rows(benchmark))
    rows: list[Row] = []
    for section in sections:
        try:
            rows += section()
        except CannotStart as error:
            rows.append(missing("agent", str(error)))
    release = f"{benchmark.manifest.model}@{benchmark.manifest.version}"
    conditions = {
        "release": release,
        "runtimes": {name: version(name) for name in ("onnxruntime", "ai-edge-litert")},
        "window": f"{benchmark.windows.shape[1]} samples x {benchmark.windows.shape[2]} inputs",
        "features": benchmark.features,
        "body_bytes": len(benchmark.body(0)),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "seconds": benchmark.seconds,
        "loop_ms": [before, loop_ms()],
        "load_average_before": busy,
        "busy": busy > BUSY,
        "load": "one process of pure Python on the same cores",
        "peers": "one worker each, the same body, the same features and model",
    }
    console = Console(width=None if sys.stdout.isatty() else 160)
    show(console, rows, release)
    console.print(
        f"a fixed loop took {before:.1f} ms before and {conditions['loop_ms'][1]:.1f} ms after; "
        f"load average before: {busy:.1f}"
    )
    if busy > BUSY:
        console.print(
            "Other programs kept the cores busy: rates are too low and latencies too high; CPU "
            "times, memory and ratios hold better. Run it again on a quiet machine."
        )
    missed = any(line["met"] is False and "socket" in line["figure"] for line in rows)
    found = profile(benchmark) if options.profile or missed else None
    if found:
        named = {line["figure"]: line["value"] for line in reversed(rows)}
        show_profile(console, found, named.get(CPU_A_ROW))
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "serving", "conditions": conditions, "rows": rows, "profile": found}
    (OUT / "serving.json").write_text(json.dumps(content, indent=2) + "\n")


def show(console: Console, rows: list[Row], release: str) -> None:
    table = Table("figure", "value", "peer", "ratio", "goal", title=f"serving {release}")
    for line in rows:
        peer, value = line["peer"], line["value"]
        met = "met" if line["met"] else "not met"
        verdict = "" if line["goal"] is None else f"{line['goal']} {met}"
        table.add_row(
            line["figure"],
            line["reason"] if value is None else f"{number(value)} {line['unit']}",
            "" if peer is None else f"{peer['name']}: {number(peer['value'])}",
            "" if line["ratio"] is None else f"{line['ratio']:.3g}",
            verdict,
        )
    console.print(table)


def number(value: float) -> str:
    """With as many digits as are worth reading."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


if __name__ == "__main__":
    main()
