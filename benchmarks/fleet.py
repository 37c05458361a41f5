"""What one server takes: windows a second, lag, connections, list calls and memory meanwhile.

A real server process on a real database, a real mosquitto, publishers in processes of their own.
Beside it stands a client that takes the same messages from the same broker and only counts them.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Run as a script, in whose own folder ``statistics`` is another module than Python's.
sys.path[0] = str(ROOT)

from benchmarks.fleet_load import subjects, yardstick  # noqa: E402
from benchmarks.fleet_load.connections import Connections  # noqa: E402
from benchmarks.fleet_load.subjects import Subject  # noqa: E402
from edge_core.messages import codec, topics  # noqa: E402
from edge_core.messages import windows as messages  # noqa: E402
from edge_core.messages.telemetry import StatsWindow  # noqa: E402
from edge_core.release import ReleaseRef  # noqa: E402
from fleet_server.services.catalog import Catalog  # noqa: E402
from fleet_server.services.clock import wall_clock  # noqa: E402
from fleet_server.storage import tables  # noqa: E402
from fleet_server.storage.database import Database  # noqa: E402
from tests.simulators.tiny_bundle import TARGET  # noqa: E402

OUT = ROOT / "build" / "bench"
PUBLISHER = ROOT / "benchmarks" / "fleet_load" / "publisher.py"
GOAL_RATE, GOAL_LAG_S, GOAL_LIST_MS = 1500.0, 5.0, 100.0
ROWS = 60
HOW = {
    "sqlite": "one process, SQLite with full sync",
    "postgresql": "API and ingest in processes of their own, PostgreSQL",
}


class Load:
    """Windows of many devices, packed like an agent packs them."""

    def __init__(self, database: Database, ref: ReleaseRef, devices: int) -> None:
        with database.read() as connection:
            self._release = Catalog(database, wall_clock).require(connection, ref.digest)
        self._schema = self._release.window_schema
        self._rng = np.random.default_rng(1)
        self._devices = devices
        self._sequence = 0
        (name, values), *_ = self._schema.slices
        counts = []
        for channel, each in zip(
            self._release.reference.channels, self._schema.values, strict=True
        ):
            shares = np.append(np.full(channel.size - 1, 1 / (channel.size - 1)), 0.0)
            counts.append(self._rng.multinomial(ROWS * each, shares))
        self._window = StatsWindow(
            device="", epoch="e", sequence=0, opened_ms=0, closed_ms=0, release=ref, target=TARGET,
            arm="incumbent", rows=ROWS, slices={name: values[0]},
            counts=np.concatenate(counts).astype("<i8").tobytes(),
        )  # fmt: skip

    def write(self, file: Path, count: int, *, begin: float, rate: float) -> None:
        """Prepare messages, each to be sent at its time."""
        with file.open("w") as stream:
            for number in range(count):
                device = f"load-{number % self._devices:05}"
                sequence = self._sequence + number // self._devices
                at = round((begin + (number / rate if rate else 0.0)) * 1000)
                window = msgspec.structs.replace(
                    self._window, device=device, sequence=sequence, opened_ms=at - 1000,
                    closed_ms=at,
                )  # fmt: skip
                payload = codec.encode(messages.pack(window, self._schema))
                stream.write(f"{topics.up(device, 'stats')} {payload.hex()}\n")
        self._sequence += -(-count // self._devices)


def taken(server: Subject) -> int:
    """Windows that are stored."""
    return int(server.rows("SELECT coalesce(sum(taken), 0) FROM epochs")[0][0])


def publish(file: Path, port: int, *, rate: float, begin: float) -> subprocess.Popen[bytes]:
    """Start a publisher."""
    command = [sys.executable, str(PUBLISHER), str(file), str(port)]
    arguments = ["--rate", str(rate), "--begin", str(begin)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)


def ended(publisher: subprocess.Popen[bytes]) -> dict[str, float]:
    """What a publisher says when it has sent everything."""
    out, _ = publisher.communicate(timeout=600)
    found: dict[str, float] = json.loads(out)
    return found


class Counter:
    """A client that takes the same messages and only counts them."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.times: list[float] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="counter")
        self._client.on_message = self._count
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topics.every_up(), qos=1)
        self._client.loop_start()
        time.sleep(0.3)

    def _count(self, *_: object) -> None:
        self.count += 1
        if self.count % 100 == 1:
            self.times.append(time.monotonic())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def peer(load: Load, port: int, count: int, folder: Path) -> float:
    """Messages a second that the counting client takes, with no server there."""
    file = folder / "peer.txt"
    load.write(file, count, begin=time.time(), rate=0)
    counter = Counter(port)
    publisher = publish(file, port, rate=0, begin=0)
    begun: float | None = None
    until = time.monotonic() + 300
    while counter.count < count and time.monotonic() < until:
        if begun is None and counter.count:
            begun = time.monotonic()
        time.sleep(0.01)
    seconds = time.monotonic() - (begun or 0.0)
    ended(publisher)
    counter.close()
    return count / seconds


def flood(server: Subject, load: Load, count: int, folder: Path) -> dict[str, float]:
    """Send everything at once, and see how fast it is stored."""
    file = folder / "flood.txt"
    load.write(file, count, begin=time.time(), rate=0)
    before = taken(server)
    publisher = publish(file, server.mqtt_port, rate=0, begin=0)
    while taken(server) == before:
        time.sleep(0.01)
    begun, first = time.monotonic(), taken(server) - before
    while (stored := taken(server) - before) < count:
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    return {"windows_per_s": (stored - first) / seconds, "sent_s": ended(publisher)["seconds"]}


class Calls:
    """A person who lists and searches devices all the time, in a thread."""

    def __init__(self, server: Subject) -> None:
        self._http = httpx.Client(
            base_url=f"{server.url}/api/v1/",
            headers={"Authorization": f"Bearer {server.token}"},
            timeout=30,
        )
        self._stop = threading.Event()
        self.milliseconds: dict[str, list[float]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Calls":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    def _run(self) -> None:
        cursor = {}
        while not self._stop.is_set():
            page = self._timed("list", "devices", {"limit": 100, **cursor})
            cursor = {"cursor": page["next"]} if page.get("next") else {}
            self._timed("search", "devices", {"limit": 100, "query": "name=load-000*"})
            self._timed("one", "devices/load-00001", {})
            time.sleep(0.02)

    def _timed(self, what: str, path: str, query: dict[str, Any]) -> dict[str, Any]:
        begun = time.monotonic()
        answer = self._http.get(path, params=query)
        self.milliseconds.setdefault(what, []).append((time.monotonic() - begun) * 1000)
        found: dict[str, Any] = answer.json()
        return found


def steady(
    server: Subject, load: Load, rate: float, seconds: float, folder: Path
) -> dict[str, Any]:
    """Send at a rate, while somebody lists devices; how late windows are stored."""
    file = folder / "steady.txt"
    count = round(rate * seconds)
    begin = time.time() + max(5.0, count / 1500)
    load.write(file, count, begin=begin, rate=rate)
    process = psutil.Process(server.ingest)
    publisher = publish(file, server.mqtt_port, rate=rate, begin=begin)
    time.sleep(max(0.0, begin - time.time()))
    sizes = [process.memory_info().rss]
    with Calls(server) as calls:
        while publisher.poll() is None:
            time.sleep(1)
            sizes.append(process.memory_info().rss)
    sent = ended(publisher)
    time.sleep(1.5)
    lags = server.rows(
        f"SELECT received_ms - closed_ms FROM windows WHERE closed_ms >= {round(begin * 1000)}"
    )
    late = np.array([lag for (lag,) in lags]) / 1000
    told = {
        what: {"p50_ms": float(np.percentile(ms, 50)), "p99_ms": float(np.percentile(ms, 99))}
        for what, ms in calls.milliseconds.items()
    }
    return {
        "rate": sent["messages"] / sent["seconds"],
        "stored": len(late),
        "sent": count,
        "lag_p50_s": float(np.percentile(late, 50)),
        "lag_p99_s": float(np.percentile(late, 99)),
        "calls": told,
        "rss_mb": [round(size / 1e6) for size in sizes],
    }


def populate(database: Database, count: int) -> None:
    """Devices that are known already."""
    now = wall_clock()
    rows = [
        {"device": f"idle-{n:06}", "first_seen_ms": now, "last_seen_ms": now, "target": TARGET}
        for n in range(count)
    ]
    with database.write() as connection:
        connection.execute(tables.devices.insert(), rows)


def show(console: Console, found: dict[str, Any]) -> None:
    """As people read it."""
    table = Table("what", "measured", "goal", "met")
    rate, lag = found["flood"]["windows_per_s"], found["steady"]["lag_p99_s"]
    table.add_row(
        "windows stored a second, all at once", f"{rate:,.0f}", f"{GOAL_RATE:,.0f}",
        _met(rate >= GOAL_RATE),
    )  # fmt: skip
    table.add_row("a client that only counts them", f"{found['peer']:,.0f}", "", "")
    table.add_row("ratio", f"{rate / found['peer']:.2f}", "", "")
    at = f"lag at {found['steady']['rate']:,.0f} windows a second, p50 / p99"
    table.add_row(
        at, f"{found['steady']['lag_p50_s']:.2f} / {lag:.2f} s", f"{GOAL_LAG_S} s",
        _met(lag <= GOAL_LAG_S),
    )  # fmt: skip
    for what, times in found["steady"]["calls"].items():
        told = f"{times['p50_ms']:.0f} / {times['p99_ms']:.0f} ms"
        met = _met(times["p99_ms"] <= GOAL_LIST_MS)
        table.add_row(
            f"{what} of devices meanwhile, p50 / p99", told, f"{GOAL_LIST_MS:.0f} ms", met
        )
    idle = found["connections"]
    table.add_row(
        "connections that stay", f"{idle['alive']:,} of {idle['asked']:,}", f"{idle['asked']:,}",
        _met(idle["alive"] >= idle["asked"]),
    )  # fmt: skip
    sizes = found["steady"]["rss_mb"]
    table.add_row("memory of the server, first / last", f"{sizes[0]} / {sizes[-1]} MB", "flat", "")
    console.print(table)


def _met(yes: bool) -> str:
    return "yes" if yes else "no"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="that send")
    parser.add_argument("--fleet", type=int, default=100_000, help="that are known")
    parser.add_argument("--windows", type=int, default=30_000, help="sent at once")
    parser.add_argument("--rate", type=float, default=GOAL_RATE, help="sent steadily")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the steady load")
    parser.add_argument("--connections", type=int, default=10_000, help="that are silent")
    parser.add_argument(
        "--database",
        choices=tuple(HOW),
        default="sqlite",
        help="postgresql: API in its own process",
    )
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the broker's as well
    console, found = Console(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with subjects.started(folder / "fleet", options.database) as server:
            ref = server.publish("1.0.0")
            with server.database() as database:
                populate(database, options.fleet)
                load = Load(database, ref, options.devices)
            found["flood"] = flood(server, load, options.windows, folder)
            with Connections(server.mqtt_port, options.connections) as idle:
                found["steady"] = steady(server, load, options.rate, options.seconds, folder)
                found["connections"] = {
                    "asked": options.connections,
                    "accepted": idle.accepted,
                    "alive": idle.alive(),
                    "seconds": idle.seconds,
                }
        with subjects.started(folder / "peer", "sqlite", decide=60.0) as server:
            ref = server.publish("1.0.0")
            with server.database() as database:
                load = Load(database, ref, options.devices)
            os.kill(server.ingest, signal.SIGSTOP)  # the broker runs on; the server takes nothing
            found["peer"] = peer(load, server.mqtt_port, options.windows, folder)
            os.kill(server.ingest, signal.SIGCONT)
    show(console, found)
    console.print(
        f"{options.devices:,} devices send, {options.fleet:,} are known; windows of "
        f"{ROWS} rows; {HOW[options.database]}; server, broker and publisher share "
        f"{os.cpu_count()} cores; file limit was {soft}; "
        f"{yardstick.told()}"
    )
    OUT.mkdir(parents=True, exist_ok=True)
    written = {**found, "conditions": vars(options), "machine": platform.platform()}
    file = OUT / ("fleet.json" if options.database == "sqlite" else "fleet_postgresql.json")
    file.write_text(json.dumps(written, indent=2) + "\n")
    console.print(f"written: {file}")


if __name__ == "__main__":
    main()
