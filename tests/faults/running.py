"""Workers that take points in turn, and the tally of what they survived."""

import contextlib
import json
import os
import select
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.case import Case, NotHere, Site, prepare
from tests.faults.device import Fault
from tests.faults.forks import Fork
from tests.faults.stage import Stage

TASK_BYTES = 256
TOLD_EVERY = 50


@dataclass
class Outcome:
    """What became of one case."""

    name: str
    points: int = 0
    survived: int = 0
    seconds: float = 0.0
    remark: str = ""
    failures: list[tuple[str, str]] = field(default_factory=list)


def run_all(
    cases: Sequence[Case], folder: Path, *, quick: bool, workers: int, only: str | None
) -> list[Outcome]:
    """Run every point of every case; the outcomes in the order of the cases."""
    stage = Stage(folder / "stage")
    try:
        _in_fork(stage, folder / "prepare", quick, None, None)
        return [_run_case(stage, case, folder, quick, workers, only) for case in cases]
    finally:
        stage.close()


def _run_case(
    stage: Stage, case: Case, folder: Path, quick: bool, workers: int, only: str | None
) -> Outcome:
    begun = time.monotonic()
    outcome = Outcome(case.name)
    work = folder / case.name
    answer = _in_fork(stage, work / "points", quick, case, None)
    if "not_here" in answer:
        outcome.remark = f"not run: {answer['not_here']}"
        print(f"{case.name}: {outcome.remark}")
        return outcome
    points = answer.get("points", [])
    if only is not None:
        points = [only]
    if "failed" in answer:
        outcome.points, outcome.failures = 1, [("points", answer["failed"])]
        points = []
    for point, why in _results(stage, case, work, quick, points, workers):
        outcome.points += 1
        outcome.survived += not why
        if why:
            outcome.failures.append((point, why))
            print(f"\n{case.name} at {point}: {why[:300]}", flush=True)
        line = f"{case.name}: {outcome.points} of {len(points)} points, {outcome.survived} survived"
        if sys.stdout.isatty():
            print(f"\r{line}", end="", flush=True)
        elif outcome.points % TOLD_EVERY == 0:
            print(line, flush=True)
    outcome.seconds = time.monotonic() - begun
    print(
        f"\r{case.name}: {outcome.survived} of {outcome.points} points survived "
        f"in {outcome.seconds:.0f} s",
        flush=True,
    )
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def _in_fork(
    stage: Stage, folder: Path, quick: bool, case: Case | None, point: str | None
) -> dict[str, list[str] | str]:
    """Prepare the stage, or enumerate a case's points, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.json"

    def work() -> None:
        site = Site(stage, folder, f"{case.name if case else 'stage'}-0", quick=quick)
        result: dict[str, object] = {}
        try:
            if case is None:
                prepare(site)
            else:
                result["points"] = case.points(site)
        except NotHere as error:
            result["not_here"] = str(error)
        except Exception as error:  # whatever it is, the point is not survived
            traceback.print_exc()
            result["failed"] = f"{type(error).__name__}: {error}"
        answer.write_text(json.dumps(result))

    child = Fork(work, folder / "log")
    child.join(600)
    found: dict[str, list[str] | str] = json.loads(answer.read_text()) if answer.exists() else {}
    if not found and case is not None:
        found = {"failed": (folder / "log").read_text()[-2000:]}
    if case is None and found:
        raise RuntimeError(f"the stage cannot be prepared: {found}")
    return found


def _results(
    stage: Stage, case: Case, work: Path, quick: bool, points: list[str], workers: int
) -> Iterator[tuple[str, str]]:
    """Point and what was wrong there, as they come."""
    tasks, tasks_in = os.pipe()
    answers, answers_in = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, answers)
        children = [
            Fork(
                lambda number=number: _work(  # type: ignore[misc]
                    stage, case, work / f"w{number}", quick, tasks, answers_in
                ),
                _folder(work) / f"worker-{number}.log",
            )
            for number in range(min(workers, len(points)))
        ]
        for child in children:
            stack.callback(child.kill)
        os.close(answers_in)
        os.close(tasks)
        waiting, given, got, rest = list(points), set(points), 0, b""
        os.set_blocking(tasks_in, False)
        written = b"".join(f"{point:>{TASK_BYTES - 1}}\n".encode() for point in waiting)
        while got < len(points):
            if written:
                with contextlib.suppress(BlockingIOError):
                    # One task is less than what a pipe takes and gives at once.
                    sent = os.write(tasks_in, written[: TASK_BYTES * 8])
                    written = written[sent:]
                if not written:
                    os.close(tasks_in)
            ready, _, _ = select.select([answers], [], [], 0.5)
            data = os.read(answers, 65536) if ready else b""
            rest += data
            *lines, rest = rest.split(b"\n")
            for line in lines:
                point, why = json.loads(line)
                given.discard(point)
                got += 1
                yield point, why
            if ready and not data:
                break
        for point in sorted(given):
            yield point, "the worker ended; its log was lost with it"


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _work(stage: Stage, case: Case, folder: Path, quick: bool, tasks: int, answers: int) -> None:
    site = Site(stage, folder, f"{case.name}-{folder.name}", quick=quick)
    while task := os.read(tasks, TASK_BYTES):
        point = task.decode().strip()
        why = ""
        try:
            case.run(site, point)
        except Fault as fault:
            why = str(fault)
        except Exception as error:  # whatever it is, the point is not survived
            why = f"{type(error).__name__}: {error}; {traceback.format_exc()[-600:]}"
        os.write(answers, json.dumps([point, why[:3000]]).encode() + b"\n")
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
