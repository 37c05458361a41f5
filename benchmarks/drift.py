"""False alerts and delays of the drift detector, beside KS, PSI and ADWIN on the same hours.

A fleet of 200 devices in 4 slices sends 32 features; devices differ, come and go, live by day and
by week, and share some weather. Four weeks are learned, a quarter passes quietly, then one feature
shifts. The flights of 2013 follow, day by day, with a model of January to May.
"""

import argparse
import copy
import datetime
import json
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Run as a script, in whose own folder ``statistics`` is another module than Python's.
sys.path[0] = str(ROOT)

from benchmarks.drift_peers import Adwin, Always, Ks, Peer, Psi  # noqa: E402
from fleet_server.domain.drifting.detector import observe  # noqa: E402
from fleet_server.domain.drifting.expectation import Period, Settings  # noqa: E402
from fleet_server.domain.drifting.measures import Channels, normal_scores  # noqa: E402
from fleet_server.domain.drifting.state import DriftState  # noqa: E402
from tests.simulators.drifting_fleet import BINS, Conditions, Fleet  # noqa: E402
from tests.simulators.flying_fleet import Flights, day_of  # noqa: E402

OUT = ROOT / "build" / "bench"
WEEKS = 4
QUARTER = 91 * 24
FOLLOWED = 24
"""Hours after a shift."""
OURS = "ours"
SHIFTS = ((0.5, False), (0.5, True), (0.2, False), (0.2, True))
"""Standard deviations, and whether one slice alone is hit."""
SETTINGS = Settings()

Float64 = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """What came of one fleet."""

    alerts: dict[str, int]
    """Alerts of the quiet quarter: hours in a row in which any stream is in alarm are one."""
    hours: dict[str, int]
    """Hours of it in alarm."""
    delays: dict[tuple[float, bool], dict[str, list[float]]]
    """Hours until a shift is seen, infinite where it is not."""


def streams(seen: Period, features: int) -> Float64:
    """Counts of every feature in every slice and in all rows: [streams, bins]."""
    arms = [seen[name]["incumbent"].counts for name in sorted(seen)]
    return np.concatenate([c.reshape(features, BINS + 3) for c in arms]).astype(np.float64)


def fleet_outcome(work: tuple[int, int]) -> Outcome:
    """Watch one fleet under every detector; for one process."""
    seed, trials = work
    conditions = Conditions()
    fleet = Fleet(conditions, seed)
    channels = Channels(fleet.channels)
    state = DriftState(len(channels))
    scores = normal_scores(fleet.channels[0])
    adwin = Adwin(scores, conditions.features * (conditions.slices + 1))
    usual = np.zeros((conditions.features * (conditions.slices + 1), BINS + 3))
    for hour in range(WEEKS * 168):
        seen = fleet.hour(hour)
        observe(state, channels, seen, hour, hour, SETTINGS)
        usual += streams(seen, conditions.features)
        adwin.hour(streams(seen, conditions.features))
    peers: dict[str, Peer] = {
        "KS, p < .05": Ks(usual, shared=False),
        "KS, Bonferroni": Ks(usual, shared=True),
        "PSI > .2": Psi(usual),
        "ADWIN": adwin,
        "always": Always(),
    }
    alerts = dict.fromkeys([OURS, *peers], 0)
    hours = dict.fromkeys(alerts, 0)
    before = dict.fromkeys(peers, False)
    last = WEEKS * 168 + QUARTER - 1
    for hour in range(WEEKS * 168, last + 1):
        seen = fleet.hour(hour)
        found = observe(state, channels, seen, hour, hour, SETTINGS)
        alerts[OURS] += found is not None and found.open
        hours[OURS] += state.memory.since is not None
        counts = streams(seen, conditions.features)
        for name, peer in peers.items():
            alarm = bool(peer.hour(counts).any())
            alerts[name] += (alarm and not before[name]) or (alarm and name == "always")
            hours[name] += alarm
            before[name] = alarm
    delays: dict[tuple[float, bool], dict[str, list[float]]] = {}
    for shift, alone in SHIFTS:
        told: dict[str, list[float]] = {name: [] for name in alerts}
        for trial in range(trials):
            again = copy.deepcopy((fleet, state, peers))
            for name, delay in _shifted(*again, channels, last, shift, trial, alone=alone).items():
                told[name].append(delay)
        delays[shift, alone] = told
    return Outcome(alerts, hours, delays)


def _shifted(
    fleet: Fleet,
    state: DriftState,
    peers: dict[str, Peer],
    channels: Channels,
    last: int,
    shift: float,
    trial: int,
    *,
    alone: bool,
) -> dict[str, float]:
    """Hours until each detector sees one feature shift; of peers the alarm has to be its own."""
    fleet.rng = np.random.default_rng(1000 + trial)
    features, slices = fleet.conditions.features, fleet.conditions.slices
    hit = trial % features
    own = hit + features * ((1 + trial % slices) if alone else 0)
    found = dict.fromkeys([OURS, *peers], float("inf"))
    for passed in range(1, FOLLOWED + 1):
        where = [trial % slices] if alone else []
        seen = fleet.hour(last + passed, shift=shift, hit=[hit], slices=where)
        told = observe(state, channels, seen, last + passed, last + passed, SETTINGS)
        if told is not None and f"f{hit}" in told.channels:
            found[OURS] = min(found[OURS], passed)
        counts = streams(seen, features)
        for name, peer in peers.items():
            if peer.hour(counts)[own]:
                found[name] = min(found[name], passed)
    return found


def seen_within(delays: list[float], hours: int) -> float:
    """Share of the shifts that were seen in so many hours."""
    return float(np.mean(np.array(delays) <= hours))


def table_of(outcomes: list[Outcome]) -> tuple[Table, dict[str, Any]]:
    """Everything as people read it, and as machines do."""
    table = Table("detector", "alerts a quarter", "hours in alarm")
    for shift, alone in SHIFTS:
        within = 1 if shift >= 0.5 else 4
        where = "in a slice" if alone else "everywhere"
        table.add_column(f"{shift} sd {where} within {within} h", justify="right")
    record: dict[str, Any] = {}
    for name in outcomes[0].alerts:
        quarter = float(np.mean([o.alerts[name] for o in outcomes]))
        part = float(np.mean([o.hours[name] for o in outcomes])) / QUARTER
        row, told = [name, f"{quarter:.2f}", f"{part:.1%}"], {"alerts": quarter, "alarm": part}
        for shift, alone in SHIFTS:
            delays = [d for o in outcomes for d in o.delays[shift, alone][name]]
            share = seen_within(delays, 1 if shift >= 0.5 else 4)
            middle = float(np.median(delays))
            row.append(f"{share:.1%} ({middle:.0f} h)")
            told[f"{shift}{' in a slice' if alone else ''}"] = share
        table.add_row(*row)
        record[name] = told
    return table, record


def fly(console: Console) -> list[dict[str, Any]]:
    """Replay the flights, and tell of every drift."""
    flights = Flights()
    state = DriftState(len(flights.channels))
    january, june, december = (day_of(2013, month, 1) for month in (1, 6, 12))
    for day in range(january, june):
        never = Settings(learning_periods=10_000)
        observe(state, flights.channels, flights.day(day), day, 24 * day, never)
    record = []
    parts = (
        ("January to May once more", january, june, copy.deepcopy(state)),
        ("June to Thanksgiving", june, december + 1, state),
    )
    for what, first, last, watched in parts:
        for day in range(first, last):
            seen = flights.day(day)
            found = observe(watched, flights.channels, seen, day, 24 * day, SETTINGS)
            if found is not None and watched.memory.opened in (day, -1):
                date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
                record.append({"part": what, "day": str(date), "says": found.summary})
                console.print(f"{what}: {date}: {found.summary}")
        told = [entry for entry in record if entry["part"] == what]
        console.print(f"{what}: {len(told)} told in {last - first} days")
    return record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", type=int, default=8, help="quiet quarters to watch")
    parser.add_argument("--trials", type=int, default=32, help="shifts of each kind and fleet")
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    console = Console()
    started = time.monotonic()
    work = [(options.seed + number, options.trials) for number in range(options.fleets)]
    outcomes = []
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for outcome in pool.imap(fleet_outcome, work):
            outcomes.append(outcome)
            print(f"{len(outcomes)} of {len(work)} fleets", file=sys.stderr, flush=True)
    table, record = table_of(outcomes)
    console.print(table)
    conditions = Conditions()
    console.print(
        f"{conditions.features} features x {conditions.slices} slices, {conditions.devices} "
        f"devices, {conditions.rows} rows an hour each; device effects {conditions.device_effect}, "
        f"day {conditions.day}, weekend {conditions.weekend}, weather {conditions.weather} sd; "
        f"{WEEKS} weeks learned; {options.fleets} quarters, {options.trials} shifts each"
    )
    flights = fly(console)
    OUT.mkdir(parents=True, exist_ok=True)
    conditions_told = {name: getattr(conditions, name) for name in Conditions.__dataclass_fields__}
    written = {
        "detectors": record,
        "flights": flights,
        "conditions": conditions_told,
        "fleets": options.fleets,
        "trials": options.trials,
        "seconds": round(time.monotonic() - started),
        "machine": platform.platform(),
    }
    (OUT / "drift.json").write_text(json.dumps(written, indent=2) + "\n")
    console.print(f"written: {OUT / 'drift.json'}")


if __name__ == "__main__":
    main()
