"""``python -m tests.faults.soak``: very many updates and predictions in one agent's process.

After a warm-up, the process may hold no more descriptors, no more threads than its pool may still
start, and hardly more memory.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.client import AgentClient
from tests.faults.case import Site, prepare
from tests.faults.device import Device
from tests.faults.stage import Stage
from tests.simulators.tiny_bundle import tiny_rows

REPORT = Path("build") / "soak.json"
BATCH = 1000
SHARE = 0.2
"""Of the updates, that warm up."""
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio's pool, which starts one when all others happen to be busy, however late that is."""
TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a process holds at one moment."""

    updates: int
    predictions: int
    rss_bytes: int
    descriptors: int
    threads: int


def held(device: Device, updates: int, predictions: int) -> Held:
    """Look at the agent's process."""
    process = Path(f"/proc/{device.agent.pid}")
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    return Held(
        updates=updates,
        predictions=predictions,
        rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
        # A connection that was just closed is one of the agent's for a moment.
        descriptors=min(_descriptors(process) for _ in range(20)),
        threads=int(status["Threads"]),
    )


def _descriptors(process: Path) -> int:
    time.sleep(0.005)
    return len(list((process / "fd").iterdir()))


def soak(folder: Path, updates: int, predictions: int) -> Iterator[Held]:
    """Run, and look now and then: after the warm-up first."""
    stage = Stage(folder / "stage")
    try:
        site = Site(stage, folder / "s", "soak", quick=False)
        prepare(site)
        with site.device(before="one", window=1.0) as device:
            yield from _soaked(device, updates, predictions)
    finally:
        stage.close()


def _soaked(device: Device, updates: int, predictions: int) -> Iterator[Held]:
    stage = device.stage
    # Three in turn: two stay on the device, so that each update fetches.
    turns = (stage.new, stage.newer, stage.old)
    rows, _ = tiny_rows(BATCH)
    warm, every = max(1, round(updates * SHARE)), max(1, updates // TOLD)
    device.start()
    device.served_by([stage.old])
    done = 0
    for number in range(1, updates + 1):
        ref = turns[(number - 1) % len(turns)]
        device.want(ref)
        device.committed(ref)
        with AgentClient(device.folder / "agent.sock") as client:
            while done < predictions * number // updates:
                answers = client.predict(rows)
                assert len(answers) == BATCH
                assert answers[0].version == ref.version
                done += BATCH
        if number in (warm, updates) or (number > warm and number % every == 0):
            yield held(device, number, done)
    device.truthful()


def growth(looks: list[Held], share: float) -> list[str]:
    """What grew since the warm-up; memory may by a share."""
    first, last = looks[0], looks[-1]
    found = []
    if last.rss_bytes > first.rss_bytes * (1 + share):
        found.append(f"memory grew from {first.rss_bytes} to {last.rss_bytes} bytes")
    if last.descriptors > first.descriptors:
        found.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
    if last.threads > first.threads + POOL_THREADS:
        found.append(f"threads grew from {first.threads} to {last.threads}")
    return found


def main() -> int:
    """Run the command line; 1 where something grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=10_000_000)
    parser.add_argument("--share", type=float, default=0.05, help="of memory that may come on top")
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=shm if shm.is_dir() else None))
    begun = time.monotonic()
    looks: list[Held] = []
    print(f"{'updates':>8} {'predictions':>12} {'RSS MiB':>9} {'descriptors':>12} {'threads':>8}")
    try:
        for look in soak(folder, options.updates, options.predictions):
            looks.append(look)
            print(
                f"{look.updates:8} {look.predictions:12} {look.rss_bytes / 2**20:9.1f} "
                f"{look.descriptors:12} {look.threads:8}",
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = growth(looks, options.share)
    seconds = round(time.monotonic() - begun, 1)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    told = {"seconds": seconds, "looks": [asdict(look) for look in looks], "grew": found}
    options.report.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{seconds} s; {'; '.join(found) or 'nothing grew'}; written: {options.report}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
