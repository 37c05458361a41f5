"""How often verdicts are right, and how soon, beside the tests that one would write first.

Whole fleets are drawn (``benchmarks/verdict_fleets``): devices differ, wander, have days and
nights, repeat themselves, and label late. The server's own ``judge_cells`` decides; at one look of
each scenario it is held against ``judge`` on the same evidence, stored and read again.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

ROOT = Path(__file__).parents[1]
# Run as a script, in whose own folder ``statistics`` is another module than Python's.
sys.path[0] = str(ROOT)

from benchmarks.verdict_fleets import bad_data, peers  # noqa: E402
from benchmarks.verdict_fleets.fleet import Fleet, World, as_evidence  # noqa: E402
from benchmarks.verdict_fleets.report import OURS, Ended, Line, record, table_of  # noqa: E402
from benchmarks.verdict_fleets.scenarios import (  # noqa: E402
    PLAN,
    SCENARIOS,
    SHADOW,
    WORSE_2,
    WORSE_5,
    Scenario,
)
from fleet_server.domain.evidence import Evidence  # noqa: E402
from fleet_server.domain.plan import Plan, Stage  # noqa: E402
from fleet_server.domain.verdict import judge, judge_cells  # noqa: E402

OUT = ROOT / "build" / "verdicts.json"
RUNS = 2000
CHUNK = 50
"""Runs that a process takes at once."""
MANY = 100_000
TRAFFIC = (60.0, 200.0, 600.0, 2000.0)
"""Rows of a device-hour."""


def minutes_of(hours: int) -> list[int]:
    """When one looks: every minute at first, then ever more rarely, by a tenth of the time."""
    found = [1]
    while found[-1] < hours * 60:
        found.append(found[-1] + max(1, found[-1] // 10))
    return [minute for minute in found if minute >= 2]


def tests_of(stage: Stage, plan: Plan, world: World, minutes: list[int]) -> dict[str, Any]:
    """The peers of one stage."""
    arm = world.devices * (1.0 if stage.kind == "shadow" else stage.share)
    due = peers.horizon(stage, plan, arm * world.rows_per_hour / 60, world.label_minutes)
    near = min(minutes, key=lambda minute: abs(minute - due))
    spaced = [
        min(minutes, key=lambda m: abs(m - near * k / peers.GROUP_LOOKS)) for k in range(1, 9)
    ]
    return {
        "z at every look": peers.Every(stage, plan, overlap=1.0),
        "z, rows apart": peers.Every(stage, plan, overlap=plan.rows_per_observation),
        "fixed horizon": peers.Fixed(stage, plan, near),
        "O'Brien-Fleming": peers.Group(stage, plan, sorted(set(spaced))),
    }


def run_stage(
    fleet: Fleet, stage: Stage, plan: Plan, hours: int, *, alone: bool
) -> dict[str, Ended]:
    """Take a fleet through one stage under every test at once."""
    minutes = minutes_of(hours)
    tests: dict[str, Any] = tests_of(stage, plan, fleet.world, minutes) if alone else {}
    ended: dict[str, Ended] = {}
    for look in fleet.looks(stage, minutes):
        if OURS not in ended:
            verdict = judge_cells(stage, plan, look.evidence, look.cells)
            if verdict.decision != "hold":
                ended[OURS] = Ended(verdict.decision, look.minute)
        for name, test in tests.items():
            outcome = test.at(look) if name not in ended else "hold"
            if outcome != "hold":
                ended[name] = Ended(outcome, look.minute)
        # The others are followed until ours has decided and the fixed horizon has passed.
        if OURS in ended and (not tests or look.minute >= tests["fixed horizon"].minute):
            break
    last = minutes[-1]
    return {name: ended.get(name, Ended("open", last)) for name in (OURS, *tests)}


def run(scenario: Scenario, plan: Plan, seed: int) -> dict[str, Ended]:
    """One fleet through all stages of a scenario; it goes on to the next when ours promotes."""
    fleet = Fleet(scenario.world, np.random.default_rng(seed), paired=scenario.paired)
    alone = len(scenario.stages) == 1
    spent, found = 0, {}
    for stage in scenario.stages:
        found = run_stage(fleet, stage, plan, scenario.hours, alone=alone)
        spent += found[OURS].minutes
        if found[OURS].outcome != "promote":
            break
    return found if alone else {OURS: Ended(found[OURS].outcome, spent)}


def replayed(scenario: Scenario, plan: Plan) -> None:
    """Judge one look as the server does, from stored evidence; raise where it differs."""
    stage = scenario.stages[0]
    fleet = Fleet(scenario.world, np.random.default_rng(1), paired=scenario.paired)
    (look,) = fleet.looks(stage, [40])
    stored = msgspec.json.encode(as_evidence(look, fleet))
    again = judge(stage, plan, msgspec.json.decode(stored, type=Evidence))
    if again != judge_cells(stage, plan, look.evidence, look.cells):
        raise AssertionError(f"{scenario.name}: stored evidence is judged differently")


def batch(work: tuple[Scenario, Plan, range]) -> list[dict[str, Ended]]:
    """A few runs; for one process."""
    scenario, plan, seeds = work
    return [run(scenario, plan, seed) for seed in seeds]


def damaged(work: tuple[Stage, str, range]) -> list[str]:
    """Verdicts on evidence that proves nothing; for one process."""
    stage, kind, seeds = work
    return [bad_data.verdicts(stage, PLAN, kind, seed) for seed in seeds]


def measure(
    pool: Any, scenarios: Sequence[Scenario], plan_of: Callable[[Scenario], Plan], runs: int
) -> Iterator[Line]:
    """Run scenario by scenario; progress goes to stderr."""
    for scenario in scenarios:
        started = time.monotonic()
        replayed(scenario, plan_of(scenario))
        seeds = range(max(CHUNK, runs // scenario.every))
        parts = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
        work = [(scenario, plan_of(scenario), part) for part in parts]
        found: list[dict[str, Ended]] = []
        for part in pool.imap(batch, work):
            found += part
            print(f"\r{scenario.name}: {len(found)}", end="", file=sys.stderr, flush=True)
        print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr)
        yield Line(scenario, found)


def by_traffic(pool: Any, runs: int) -> Iterator[Line]:
    """How soon a worse release is seen in the shadow, at other row rates."""
    for rows in TRAFFIC:
        for world, points in ((WORSE_5, 5), (WORSE_2, 2)):
            changed = World(**(_fields(world) | {"rows_per_hour": rows}))
            scenario = Scenario(
                name=f"{rows:.0f} rows an hour: {points} points worse, seen",
                world=changed,
                stages=(SHADOW,),
                watched="rollback",
                hours=24,
            )
            yield from measure(pool, [scenario], plan_of, runs)


def _fields(world: World) -> dict[str, Any]:
    return {name: getattr(world, name) for name in world.__dataclass_fields__}


def proves_nothing(pool: Any, runs: int) -> dict[str, int]:
    """Kind of stage and damage -> verdicts other than hold."""
    found = {}
    for stage in PLAN.stages:
        for kind in bad_data.KINDS:
            seeds = range(runs)
            parts = [seeds[start : start + CHUNK] for start in range(0, runs, CHUNK)]
            results = pool.imap(damaged, [(stage, kind, part) for part in parts])
            decisions = [decision for part in results for decision in part]
            found[f"{stage.kind}, {kind}"] = sum(decision != "hold" for decision in decisions)
    return found


def at_scale() -> dict[str, float]:
    """Seconds from stored evidence of many devices to the verdict, the better of three."""
    found = {}
    for stage in PLAN.stages:
        fleet = Fleet(World(devices=1000), np.random.default_rng(0))
        (look,) = fleet.looks(stage, [40])
        seen = many(as_evidence(look, fleet), MANY // 1000)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            judge(stage, PLAN, seen)
            seconds.append(time.perf_counter() - started)
        found[f"{stage.kind}, {MANY} devices"] = round(min(seconds), 3)
    return found


def many(seen: Evidence, times: int) -> Evidence:
    """The same devices so many times, under other names."""

    def named(parts: Sequence[Any]) -> list[Any]:
        return [
            msgspec.structs.replace(part, device=f"{part.device}-{copy}")
            for copy in range(times)
            for part in parts
        ]

    return msgspec.structs.replace(
        seen,
        cells=named(seen.cells),
        members=named(seen.members),
        baselines=named(seen.baselines),
    )


def conditions(runs: int) -> dict[str, Any]:
    """What the figures hold for."""
    world = World()
    return {
        "runs": runs,
        "devices": world.devices,
        "traffic": f"{world.rows_per_hour:.0f} labelled rows a device-hour (by day more, by night "
        f"less), labels {world.label_minutes} min late",
        "world": _fields(world),
        "plan": msgspec.to_builtins(PLAN),
        "looks": "every minute, later at each tenth of the time passed",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, numpy {np.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    console = Console(width=200)
    started = time.monotonic()
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    result: dict[str, Any] = {"conditions": conditions(options.runs), "lines": [], "traffic": []}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        lines = []
        for line in measure(pool, chosen, plan_of, options.runs):
            lines.append(line)
            # What is measured so far is kept, however the rest goes.
            result["lines"].append(record(line))
            write(result)
        console.print(table_of(lines))
        if not options.only:
            traffic = list(by_traffic(pool, max(CHUNK, options.runs // 20)))
            console.print(table_of(traffic))
            result["traffic"] = [record(line) for line in traffic]
            result["nothing"] = proves_nothing(pool, max(CHUNK, options.runs // 4))
            console.print(f"verdicts from data that proves nothing: {result['nothing']}")
            result["at_scale"] = at_scale()
            console.print(f"seconds for one verdict: {result['at_scale']}")
    write(result)
    console.print_json(msgspec.json.encode(result["conditions"]).decode())
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def write(result: dict[str, Any]) -> None:
    """Keep what was measured; never is no number in JSON."""
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1).replace("Infinity", "null"))


def plan_of(scenario: Scenario) -> Plan:
    """The plan whose stages a scenario goes through."""
    return msgspec.structs.replace(PLAN, stages=list(scenario.stages))


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
