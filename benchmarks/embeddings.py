"""Shifts of an embedding that no score shows: how soon they are seen, from how many directions.

100 devices send 2,000 rows an hour with embeddings of 64 coordinates; devices differ and live by
the day. Four weeks are learned, a quarter passes quietly, then the embedding moves in directions
that the scores do not read. Beside ours: every coordinate counted as a channel of its own, and the
maximum mean discrepancy of rows (Gretton et al., "A kernel two-sample test", 2012), for which rows
would have to leave the device.
"""

import argparse
import copy
import json
import multiprocessing
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Run as a script, in whose own folder ``statistics`` is another module than Python's.
sys.path[0] = str(ROOT)

from edge_core.stats import packing  # noqa: E402
from fleet_server.domain.drifting.detector import observe  # noqa: E402
from fleet_server.domain.drifting.expectation import Settings  # noqa: E402
from fleet_server.domain.drifting.measures import Channels  # noqa: E402
from fleet_server.domain.drifting.state import DriftState  # noqa: E402
from tests.simulators.embedding_fleet import Conditions, EmbeddingFleet  # noqa: E402

OUT = ROOT / "build" / "bench"
CONDITIONS = Conditions()
LEARNED, QUARTER, FOLLOWED = 4 * 168, 91 * 24, 24
"""Hours; the last after a shift."""
DIRECTIONS = (1, 2, 4, 8, 16, 32)
LENGTHS = (0.1, 0.2, 0.3, 0.5)
"""As if every coordinate had moved by so many standard deviations."""
DEVICE_HOUR = 600
SETTINGS = Settings()
MMD_ROWS, PERMUTATIONS = 300, 100

Float64 = npt.NDArray[np.float64]


class Watched(NamedTuple):
    """What came of one fleet, watched in one way."""

    way: str
    alerts: int
    """In the weeks of learning and the quiet quarter."""
    alarm: float
    """Share of the quiet quarter in alarm."""
    delays: dict[float, list[float]]
    """Hours until a shift of a length is seen, infinite where it is not."""
    size: int
    """Bytes of the embedding in one device-hour."""


def ours(work: tuple[int, int, int]) -> Watched:
    """Watch one fleet from some directions, or coordinate by coordinate for 0; one process."""
    seed, trials, directions = work
    told = replace(CONDITIONS, directions=directions)
    fleet = EmbeddingFleet(told, seed)
    channels, alerts, alarm = Channels(fleet.channels), 0, 0
    state = DriftState(len(channels))
    for hour in range(LEARNED + QUARTER):
        found = observe(state, channels, fleet.hour(hour), hour, hour, SETTINGS)
        alerts += found is not None and found.open
        alarm += hour >= LEARNED and state.memory.since is not None
        if hour == LEARNED - 1:
            learned = copy.deepcopy((fleet, state))
    delays: dict[float, list[float]] = {length: [] for length in LENGTHS}
    for length in LENGTHS:
        for trial in range(trials):
            again, watch = copy.deepcopy(learned)
            again.rng = np.random.default_rng(1000 * seed + trial)
            shift = again.hidden(length * np.sqrt(told.size))
            delays[length].append(float("inf"))
            for passed in range(1, FOLLOWED + 1):
                hour = LEARNED + passed - 1
                seen = again.hour(hour, shift)
                if observe(watch, channels, seen, hour, hour, SETTINGS) is not None:
                    delays[length][-1] = passed
                    break
    way = f"{directions} directions" if directions else "every coordinate"
    return Watched(way, alerts, alarm / QUARTER, delays, bytes_of(fleet))


def bytes_of(fleet: EmbeddingFleet) -> int:
    """What the embedding's channels take of a device-hour, packed."""
    channels = [c for c in fleet.reference.channels if c.name.startswith(("embedding[", "c["))]
    shares = [np.array(c.counts) / sum(c.counts) for c in channels]
    drawn = [fleet.rng.multinomial(DEVICE_HOUR, share) for share in shares]
    return len(packing.pack(np.concatenate(drawn), [c.size for c in channels], DEVICE_HOUR))


def mmd(work: tuple[int, int]) -> Watched:
    """Compare rows of each hour with training rows; every alarm is one at p < .05."""
    seed, trials = work
    fleet = EmbeddingFleet(CONDITIONS, seed)
    training = fleet.rng.normal(0, 1, (MMD_ROWS, CONDITIONS.size))
    rng = np.random.default_rng(seed)

    def alarm(hour: int, shift: Float64 | float) -> bool:
        rows = fleet.rows(hour, shift)[0].astype(np.float64)
        chosen = rows[rng.choice(len(rows), MMD_ROWS, replace=False)]
        return _p_value(np.concatenate([training, chosen]), rng) < 0.05

    quiet = [alarm(LEARNED + hour, 0.0) for hour in range(0, QUARTER, 12)]
    delays: dict[float, list[float]] = {length: [] for length in LENGTHS}
    for length in LENGTHS:
        for _ in range(trials):
            shift = fleet.hidden(length * np.sqrt(CONDITIONS.size))
            seen = (n for n in range(1, FOLLOWED + 1) if alarm(LEARNED + n, shift))
            delays[length].append(next(seen, float("inf")))
    starts = int(np.sum(np.diff([0, *quiet]) > 0))
    size = 4 * CONDITIONS.size * MMD_ROWS // CONDITIONS.devices
    return Watched("MMD of rows, p < .05", starts, float(np.mean(quiet)), delays, size)


def _p_value(rows: Float64, rng: np.random.Generator) -> float:
    squares = (rows**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * rows @ rows.T
    kernel = np.exp(-distances / np.median(distances))
    signs = np.repeat([1.0, -1.0], MMD_ROWS)
    drawn = np.stack([signs, *(rng.permutation(signs) for _ in range(PERMUTATIONS))])
    found = np.einsum("pi,pi->p", drawn @ kernel, drawn)
    return float(np.mean(found[1:] >= found[0]))


def table_of(outcomes: list[Watched]) -> tuple[Table, list[dict[str, Any]]]:
    """As people read it, and as machines do."""
    table = Table("watched", "alerts", "hours in alarm", "bytes a device-hour")
    for length in LENGTHS:
        table.add_column(f"{length} sd: 1 h, 4 h, 24 h", justify="right")
    record = []
    for way in dict.fromkeys(outcome.way for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.way == way]
        alerts, alarm = sum(o.alerts for o in own), float(np.mean([o.alarm for o in own]))
        size = float(np.mean([o.size for o in own]))
        cells, seen = [], {}
        for length in LENGTHS:
            delays = np.array([delay for o in own for delay in o.delays[length]])
            shares = [float((delays <= hours).mean()) for hours in (1, 4, 24)]
            cells.append(" ".join(f"{share:.0%}" for share in shares))
            seen[str(length)] = shares
        table.add_row(way, str(alerts), f"{alarm:.0%}", f"{size:.0f}", *cells)
        record.append({"way": way, "alerts": alerts, "alarm": alarm, "bytes": size, "seen": seen})
    return table, record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", type=int, default=3, help="quiet quarters to watch")
    parser.add_argument("--trials", type=int, default=16, help="shifts of each length and fleet")
    options = parser.parse_args()
    seeds = range(1, options.fleets + 1)
    console = Console(width=140)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        work = [(seed, options.trials, n) for n in (*DIRECTIONS, 0) for seed in seeds]
        found = pool.map(ours, work, chunksize=1)
        found += pool.map(mmd, [(seed, options.trials) for seed in seeds], chunksize=1)
    table, record = table_of(found)
    console.print(table)
    OUT.mkdir(parents=True, exist_ok=True)
    written = {
        "ways": record,
        "conditions": {n: getattr(CONDITIONS, n) for n in Conditions.__dataclass_fields__},
        "fleets": options.fleets,
        "trials": options.trials,
        "machine": platform.platform(),
    }
    (OUT / "embeddings.json").write_text(json.dumps(written, indent=2) + "\n")
    console.print(f"written: {OUT / 'embeddings.json'}")


if __name__ == "__main__":
    main()
