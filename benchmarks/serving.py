"""How fast does the agent answer through its socket, next to the same model called directly?

``python benchmarks/serving.py [--bundle FOLDER] [--seconds N]`` prints a table and writes
``build/bench/serving.json``. Without a bundle it builds watch_activity 1.1.0 once. Agent and load
are processes of their own; the agent counts statistics and remembers predictions as in a fleet.
Every request is one raw window of float32 samples.
"""

import argparse
import json
import os
import platform
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  # the repository's root has to be on the path first
import psutil  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from edge_agent.serving import frames  # noqa: E402
from edge_agent.serving.release import LoadedRelease  # noqa: E402

TARGET = "cpu-x86_64-ort"
CONNECTIONS = 64
BATCH = 64
WARM_UP_SECONDS = 1.0
DIFFERENT_ROWS = 64
OUT = ROOT / "build" / "bench"

GOAL_RATE = 50_000.0
GOAL_SHARE = 0.6
GOAL_OVERHEAD_US = 100.0


# The load's process: one thread, many connections, one request under way on each.


class Connection:
    """One client that always waits for its answer before it asks again."""

    def __init__(self, path: str, requests: list[bytes], first: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.requests = requests
        self.next = first
        self.asked = 0.0
        self.pending = b""

    def ask(self) -> None:
        """Send the next request."""
        self.asked = time.perf_counter()
        self.socket.sendall(self.requests[self.next % len(self.requests)])
        self.next += 1

    def answered(self) -> bytes | None:
        """One whole answer, or none while some of it is missing."""
        self.pending += self.socket.recv(65536)
        if len(self.pending) < 4:
            return None
        size = 4 + int.from_bytes(self.pending[:4], "little")
        if len(self.pending) < size:
            return None
        answer, self.pending = self.pending[4:size], self.pending[size:]
        return answer


def run_load(path: str, samples_file: str, connections: int, seconds: float) -> None:
    samples = np.load(samples_file)
    requests = [
        frames.encode(frames.Predict(id=row, shape=(1, *one.shape), samples=one.tobytes()))
        for row, one in enumerate(samples)
    ]
    clients = [Connection(path, requests, index) for index in range(connections)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.ask()
    measure(clients, selector, WARM_UP_SECONDS)
    print(json.dumps(measure(clients, selector, seconds)), flush=True)


def measure(
    clients: list[Connection], selector: selectors.BaseSelector, seconds: float
) -> dict[str, float]:
    """Answers within ``seconds``: how many, how late, and how many were no prediction."""
    latencies: list[float] = []
    wrong = 0
    began = time.perf_counter()
    ends = began + seconds
    now = began
    while now < ends:
        for key, _ in selector.select(1.0):
            client: Connection = key.data
            answer = client.answered()
            if answer is None:
                continue
            latencies.append(time.perf_counter() - client.asked)
            wrong += b"answers" not in answer[:12] or b"model" not in answer
            client.ask()
        now = time.perf_counter()
    micros = np.array(latencies) * 1e6
    return {
        "answers": float(len(latencies)),
        "wrong": float(wrong),
        "seconds": now - began,
        "p50_us": float(np.quantile(micros, 0.5)),
        "p99_us": float(np.quantile(micros, 0.99)),
    }


# The measuring process.


class Agent:
    """The serving process, and the CPU time that it used."""

    def __init__(self, bundle: Path, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "serve", str(bundle), "--socket", str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("serving"):
            self._process.wait()
            raise SystemExit("the serving process did not start; its message stands above")
        self._usage = psutil.Process(self._process.pid)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def megabytes(self) -> float:
        """Proportional set size."""
        return float(self._usage.memory_full_info().pss) / 1e6

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def load(path: Path, samples: Path, connections: int, seconds: float) -> dict[str, float]:
    arguments = ["load", str(path), str(samples), str(connections), str(seconds)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    if result["wrong"]:
        raise SystemExit(f"{result['wrong']:.0f} answers were not predictions of the model")
    return result


def direct_rate(call: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows per second of a direct call, best of three parts, after a warm-up."""
    rates = []
    for part in (0.2, seconds / 3, seconds / 3, seconds / 3):
        calls, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < part:
            call()
            calls += 1
        rates.append(calls * rows / elapsed)
    return max(rates[1:])


def measure_direct(release: LoadedRelease, bundle: Path, seconds: float) -> dict[str, float]:
    """The same model file through onnxruntime, without any of our serving."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        bundle / release.variant.path, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    golden = release.golden()
    one, many = golden.features[:1], np.resize(golden.features, (BATCH, golden.features.shape[1]))
    window = golden.samples[:1]
    windows = np.resize(golden.samples, (BATCH, *golden.samples.shape[1:]))
    evaluator = release.evaluator

    def whole(raw: Any) -> object:
        features = evaluator.evaluate(evaluator.quantise(raw))
        return session.run(None, {name: features})

    return {
        "one": direct_rate(lambda: session.run(None, {name: one}), 1, seconds),
        "batch": direct_rate(lambda: session.run(None, {name: many}), BATCH, seconds),
        "whole_one": direct_rate(lambda: whole(window), 1, seconds),
        "whole_batch": direct_rate(lambda: whole(windows), BATCH, seconds),
    }


def measured_rows(bundle: Path, seconds: float) -> list[dict[str, Any]]:
    release = LoadedRelease.open(bundle, TARGET)
    direct = measure_direct(release, bundle, seconds / 2)
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.npy"
        golden = release.golden().samples
        np.save(samples, np.resize(golden, (DIFFERENT_ROWS, *golden.shape[1:])).astype("<f4"))
        path = Path(folder) / "agent.sock"
        agent = Agent(bundle, path)
        try:
            single = load(path, samples, 1, seconds / 2)
            before = agent.cpu_seconds()
            many = load(path, samples, CONNECTIONS, seconds)
            # The warm-up's answers count as well: CPU time was read before it.
            answered = many["answers"] * (1 + WARM_UP_SECONDS / many["seconds"])
            cpu_us = (agent.cpu_seconds() - before) * 1e6 / answered
            memory = agent.megabytes()
        finally:
            agent.stop()
    rate = many["answers"] / many["seconds"]
    overhead = single["p50_us"] - 1e6 / direct["whole_one"]
    socket_name = f"socket, {CONNECTIONS} connections, one row a request"
    return [
        row(socket_name, rate, "rows/s", ("session.run, one row", direct["one"]), GOAL_RATE),
        row(socket_name, rate, "rows/s", (f"session.run, {BATCH} rows", direct["batch"])),
        row(socket_name, rate, "rows/s", ("features + run, one row", direct["whole_one"])),
        row(
            socket_name,
            rate,
            "rows/s",
            (f"features + run, {BATCH} rows", direct["whole_batch"]),
            GOAL_SHARE,
            of_ratio=True,
        ),
        row("agent's CPU time a row", cpu_us, "us", ("features + run", 1e6 / direct["whole_one"])),
        row("latency p50 at 64 connections", many["p50_us"], "us"),
        row("latency p99 at 64 connections", many["p99_us"], "us"),
        row(
            "one connection, p50 over features + run",
            overhead,
            "us",
            ("features + run, one row", 1e6 / direct["whole_one"]),
            GOAL_OVERHEAD_US,
            at_most=True,
        ),
        row("agent's memory (PSS)", memory, "MB", goal=80.0, at_most=True),
    ]


def row(
    figure: str,
    value: float,
    unit: str,
    peer: tuple[str, float] | None = None,
    goal: float | None = None,
    *,
    at_most: bool = False,
    of_ratio: bool = False,
) -> dict[str, Any]:
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


def default_bundle() -> Path:
    """Find the bundle of an earlier run, or build it."""
    bundle = OUT / "bundle"
    if not (bundle / "manifest.json").is_file():
        recipe = ROOT / "firmware_bundles" / "watch_activity"
        arguments = ["build", str(recipe), "--release", "1.1.0", "--out", str(bundle)]
        arguments += ["--targets", TARGET]
        print("building watch_activity 1.1.0 (once) ...", flush=True)
        command = "import sys; from converters.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", command, *arguments], check=False, cwd=ROOT)
        if done.returncode:
            raise SystemExit("the bundle was not built; name another one with --bundle FOLDER")
    return bundle


def report(bundle: Path, seconds: float) -> None:
    rows = measured_rows(bundle, seconds)
    release = LoadedRelease.open(bundle, TARGET)
    window = release.definition.window.samples
    conditions = {
        "release": release.ref.name,
        "runtime": release.session.runtime,
        "window": f"{window} samples x {len(release.definition.inputs)} inputs",
        "features": len(release.definition.feature_names),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "seconds": seconds,
        "load": "one process on the same cores",
    }
    table = Table("figure", "value", "peer", "ratio", "goal", title=f"serving {release.ref.name}")
    for line in rows:
        peer = line["peer"]
        table.add_row(
            line["figure"],
            f"{line['value']:,.1f} {line['unit']}",
            "" if peer is None else f"{peer['name']}: {peer['value']:,.1f}",
            "" if line["ratio"] is None else f"{line['ratio']:.3f}",
            "" if line["goal"] is None else f"{line['goal']} {'met' if line['met'] else 'not met'}",
        )
    Console().print(table)
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "serving", "conditions": conditions, "rows": rows}
    (OUT / "serving.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    if sys.argv[1:2] == ["load"]:
        run_load(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="bundle folder with a variant for " + TARGET)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the measurement")
    options = parser.parse_args()
    report(options.bundle or default_bundle(), options.seconds)


if __name__ == "__main__":
    main()
