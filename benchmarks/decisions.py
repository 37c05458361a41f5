"""How long a rollout's decisions take over a large fleet: services on SQLite, without a broker.

A stage begins, is decided without evidence and with it, and is rolled back in one call; the orders
of the way back are then packed and noted as sent, as the leader does it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
# Run as a script, in whose own folder ``statistics`` is another module than Python's.
sys.path[0] = str(ROOT)

from benchmarks.fleet_load import yardstick  # noqa: E402
from edge_core.release import ReleaseRef  # noqa: E402
from fleet_server.storage import tables  # noqa: E402
from tests.fleet_server.conftest import Clock, Repository  # noqa: E402
from tests.simulators.spoken_fleet import SpokenFleet  # noqa: E402
from tests.simulators.tiny_bundle import TARGET  # noqa: E402

PLAN = {"stages": [{"kind": "canary", "share": 0.5, "min_seconds": 3600.0}]}


def timed(what: str, step: Callable[[], Any], found: dict[str, float]) -> Any:
    """Run a step; note its seconds and tell them."""
    begun = time.perf_counter()
    result = step()
    found[what] = round(time.perf_counter() - begun, 3)
    print(f"{found[what]:8.3f} s  {what}", file=sys.stderr, flush=True)
    return result


def fill(fleet: SpokenFleet, old: ReleaseRef, count: int, now_ms: int) -> None:
    """Devices that run a release which is in production."""
    fleet.produce(old, [])
    rows = [
        {
            "device": f"device-{number:06}", "target": TARGET, "runtime": "none",
            "slices": {"side": ("left", "right")[number % 2]}, "online": True,
            "first_seen_ms": now_ms, "last_seen_ms": now_ms, "active": old.digest,
            "active_since_ms": now_ms, "shadow": None, "update_state": "committed", "reason": "",
            "desired_revision": 0, "trouble": "", "reported": None,
        }
        for number in range(count)
    ]  # fmt: skip
    with fleet.services.database.write() as connection:
        connection.execute(tables.devices.insert(), rows)


def obey(fleet: SpokenFleet) -> None:
    """Every device runs what it should."""
    wished = tables.desired.c
    of_device = tables.desired.select().where(wished.device == tables.devices.c.device)
    with fleet.services.database.write() as connection:
        connection.execute(
            tables.devices.update().values(
                desired_revision=of_device.with_only_columns(wished.revision).scalar_subquery(),
                active=of_device.with_only_columns(wished.active).scalar_subquery(),
                shadow=of_device.with_only_columns(wished.shadow).scalar_subquery(),
            )
        )


def label(fleet: SpokenFleet, rollout: str, bins: int) -> None:
    """One cell of each device and arm, both releases alike."""
    latency = np.zeros(bins, "<i8")
    latency[1] = 100
    cell = {
        "rollout": rollout, "stage": 0, "slice": "", "latency": latency.tobytes(), "rows": 100,
        "errors": 0, "right": 80, "wrong": 20, "both_right": 0, "only_active_right": 0,
        "only_shadow_right": 0, "both_wrong": 0, "scored": 100, "unusual": 20,
        "agree": 0, "disagree": 0,
    }  # fmt: skip
    paired = {"both_right": 70, "only_active_right": 10, "only_shadow_right": 10, "both_wrong": 10}
    rows = []
    for name, wish in fleet.wishes().items():
        rows.append(cell | {"device": name, "arm": wish.arm, "digest": wish.active})
        if wish.shadow is not None:
            rows.append(cell | paired | {"device": name, "arm": "shadow", "digest": wish.shadow})
    with fleet.services.database.write() as connection:
        connection.execute(tables.cells.insert(), rows)


def send_all(fleet: SpokenFleet) -> int:
    """Pack what is due and note it as sent until nothing is due; how many."""
    sent = 0
    while due := fleet.services.desired.to_send():
        fleet.services.desired.sent(due)
        sent += len(due)
    return sent


def measure(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each step."""
    clock, found = Clock(), dict[str, float]()
    repository = Repository(folder)
    with SpokenFleet(folder, clock) as fleet:
        old = fleet.approve(repository.publish("1.0.0"))
        new = fleet.approve(repository.publish("1.1.0", seed=1))
        fill(fleet, old, count, clock.now)
        service = fleet.services.rollouts
        begun = timed("start", lambda: service.start(new.name, PLAN, "bench"), found)
        found["orders of the start"] = timed("send them", lambda: send_all(fleet), found)
        timed("due, none", fleet.services.desired.to_send, found)
        timed("decide, nobody has answered", service.decide, found)
        obey(fleet)
        timed("decide, no evidence", service.decide, found)
        label(fleet, begun.rollout, 8)
        clock.now += 60_000
        timed("decide, evidence of every device", service.decide, found)
        timed("roll back", lambda: service.roll_back(begun.rollout, "bench", "slow"), found)
        found["orders of the way back"] = timed("send these", lambda: send_all(fleet), found)
        obey(fleet)
        timed("decide, all are back", service.decide, found)
        assert service.one(begun.rollout).state == "rolled_back"
    return found


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), parser.parse_args().devices), indent=2))
    print(yardstick.told(), file=sys.stderr)


if __name__ == "__main__":
    main()
