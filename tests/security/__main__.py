"""``make security``: attacks on a running device, and whether it refused and served on."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.running import Outcome, run_all
from tests.security import archive_attacks, repository_attacks
from tests.security.attacked import SILENT

CASES = [*repository_attacks.CASES, *archive_attacks.CASES]
REPORT = Path("build") / "security.json"


def main() -> int:
    """Run the command line; 1 where an attack came through or the device fell silent."""
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--attack", action="append", help="only this one; may be given often")
    parser.add_argument("--list", action="store_true", help="name the attacks")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    known = {case.name: case for case in CASES}
    if options.list:
        for case in CASES:
            print(f"{case.name:24} {case.what}")
        return 0
    unknown = set(options.attack or ()) - set(known)
    if unknown:
        print(f"no attack {sorted(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in options.attack or known]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="attacks-", dir=shm if shm.is_dir() else None))
    try:
        outcomes = run_all(chosen, folder, quick=False, workers=options.workers, only=None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [_row(outcome) for outcome in outcomes]
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps({"scenarios": rows}, indent=1) + "\n")
    _tell(rows, {case.name: case.what for case in chosen}, outcomes)
    print(f"written: {options.report}")
    held = all(row["tried"] == row["refused"] == row["still_serving"] > 0 for row in rows)
    return 0 if held else 1


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
        for _, why in outcome.failures:
            print(f"NOT HELD: {outcome.name}: {why}")


if __name__ == "__main__":
    sys.exit(main())
