"""``make security``: attacks on running devices and servers, and whether all refused and served."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.case import Case
from tests.faults.running import Outcome, run_all
from tests.security import (
    archive_attacks,
    broker_attacks,
    enrolment_attacks,
    repository_attacks,
    server_attacks,
)
from tests.security.attacked import SILENT
from tests.security.scenario import run_scenarios

CASES = [*repository_attacks.CASES, *archive_attacks.CASES]
"""On a device of its own each."""
SCENARIOS = [
    *broker_attacks.SCENARIOS,
    *enrolment_attacks.SCENARIOS,
    *server_attacks.SCENARIOS,
]
"""On one server with one enrolled device, one after the other."""
REPORT = Path("build") / "security.json"


def main() -> int:
    """Run the command line; 1 where an attack came through or the device fell silent."""
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--attack", action="append", help="only this one; may be given often")
    parser.add_argument("--list", action="store_true", help="name the attacks")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    known = {case.name: case.what for case in CASES}
    known |= {scenario.name: scenario.what for scenario in SCENARIOS}
    if options.list:
        for name, what in known.items():
            print(f"{name:24} {what}")
        return 0
    unknown = set(options.attack or ()) - set(known)
    if unknown:
        print(f"no attack {sorted(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = options.attack or list(known)
    cases = [case for case in CASES if case.name in chosen]
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in chosen]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="attacks-", dir=shm if shm.is_dir() else None))
    try:
        outcomes = _on_devices(cases, folder, options.workers)
        outcomes += run_scenarios(scenarios, folder / "fleet")  # has threads: no forks after it
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [_row(outcome) for outcome in outcomes]
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps({"scenarios": rows}, indent=1) + "\n")
    _tell(rows, known, outcomes)
    print(f"written: {options.report}")
    held = all(row["tried"] == row["refused"] == row["still_serving"] > 0 for row in rows)
    return 0 if held else 1


def _on_devices(cases: list[Case], folder: Path, workers: int) -> list[Outcome]:
    if not cases:
        return []
    return run_all(cases, folder, quick=False, workers=workers, only=None)


def _row(outcome: Outcome) -> dict[str, int | str]:
    silent = sum(why.startswith(SILENT) for _, why in outcome.failures)
    return {
        "name": outcome.name,
        "tried": outcome.points,
        "refused": outcome.survived,
        "still_serving": outcome.points - silent,
    }


def _tell(rows: list[dict[str, int | str]], what: dict[str, str], outcomes: list[Outcome]) -> None:
    table = Table("attack", "what is tried", "tried", "refused", "still serving")
    for row in rows:
        name = str(row["name"])
        numbers = (str(row[key]) for key in ("tried", "refused", "still_serving"))
        table.add_row(name, what[name], *numbers)
    Console().print(table)
    for outcome in outcomes:
        for point, why in outcome.failures:
            print(f"NOT HELD: {outcome.name}, {point}: {why}")


if __name__ == "__main__":
    sys.exit(main())
