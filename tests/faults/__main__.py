"""``python -m tests.faults``: every fault at every point, and what was survived."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import catalogue
from tests.faults.running import Outcome, run_all

REPORT = Path("build") / "faults.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--case", action="append", help="only this case; may be given often")
    parser.add_argument("--point", help="only this point of the case")
    parser.add_argument("--quick", action="store_true", help="a part of the points of each case")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPORT)
    return parser


def main() -> int:
    """Run the command line; 1 where a point was not survived."""
    options = _parser().parse_args()
    known = {case.name: case for case in catalogue.CASES}
    if options.list:
        for case in known.values():
            print(f"{case.name:24} {case.what}")
        return 0
    unknown = set(options.case or ()) - set(known)
    if unknown:
        print(f"no case {sorted(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    cases = [known[name] for name in options.case or known]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=shm if shm.is_dir() else None))
    try:
        outcomes = run_all(
            cases, folder, quick=options.quick, workers=options.workers, only=options.point
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _tell(outcomes, options.report)


def _tell(outcomes: list[Outcome], report: Path) -> int:
    report.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"name": outcome.name, "points": outcome.points, "survived": outcome.survived}
        for outcome in outcomes
    ]
    report.write_text(json.dumps({"cases": rows}, indent=1) + "\n")
    print(f"\n{'case':24} {'points':>7} {'survived':>9} {'seconds':>8}")
    for outcome in outcomes:
        print(
            f"{outcome.name:24} {outcome.points:7} {outcome.survived:9} {outcome.seconds:8.1f}"
            f"{'  ' + outcome.remark if outcome.remark else ''}"
        )
    points, survived = (sum(row[key] for row in rows) for key in ("points", "survived"))  # type: ignore[misc]
    print(f"{'all':24} {points:7} {survived:9}\n")
    for outcome in outcomes:
        for point, why in outcome.failures:
            print(f"NOT SURVIVED: {outcome.name} at {point}: {why}")
            print(f"  again: python -m tests.faults --case {outcome.name} --point {point}")
    print(f"written: {report}")
    return 0 if points and points == survived else 1


if __name__ == "__main__":
    sys.exit(main())
