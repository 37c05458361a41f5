"""Runs of ``backfill`` and ``score`` that die by SIGKILL, and are run again until they are done.

``python -m tests.simulators.killed_runs WHERE ROOT COMMAND WHAT LOG`` runs one whole, then many
times with a kill in it. WHERE is ``everywhere``: at each file operation below the output in turn,
counted by Python's audit events (PEP 578) as in ``power_cut``; ``again``: at the same operation of
every run, until one is done; or ``anytime``: after a moment by chance. Every file of the output has
to be a whole run's at every death. Prints how many runs died. Each run is a fork of this process,
so that imports cost once.
"""

import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas  # noqa: F401
import pyarrow.csv
import pyarrow.parquet  # noqa: F401  # before the forks, as all that the commands import late

from converters.data import tables
from converters.history import backfill, batch_scoring, piecewise
from tests.simulators.power_cut import OPERATIONS

PART_ROWS = 256
PIECE_ROWS = 150
SAVED_ROWS = 1000
"""Small, so that there are many parts, and states between them."""

Digests = dict[str, str]
Run = Callable[[Path], object]
"""Makes an output in a folder."""


class Unseen:
    """Progress that nobody looks at."""

    def begun(self, total: int, read: int) -> None:
        """See :class:`converters.history.piecewise.Report`."""

    def advanced(self, read: int, rows: int) -> None:
        """See :class:`converters.history.piecewise.Report`."""


class Cut:
    """Counts file operations below one folder, and kills the process at one of them."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = str(folder)
        self._number = number
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """See one audit event."""
        if event not in OPERATIONS or not str(arguments[0]).startswith(self._folder):
            return
        self.seen += 1
        if self.seen == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(run: Run, output: Path, number: int, count: Path) -> int:
    """Begin a run in a fork, which dies at the numbered operation if there is one."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        cut = Cut(output, number)
        sys.addaudithook(cut)
        run(output)
        count.write_text(str(cut.seen))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Wait; whether the run was done, or else killed. Anything else is an error."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"the run ended with {os.WEXITSTATUS(status)}"
    return True


def digests(folder: Path) -> Digests:
    """Of the files that people read."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("[!.]*"))
        if path.suffix in (".parquet", ".json")
    }


def check(folder: Path, whole: Digests, *, done: bool) -> None:
    """Everything that is there is as in a whole run; parts from the first on."""
    found = digests(folder) if folder.exists() else {}
    assert found.items() <= whole.items(), f"{found} is no part of {whole}"
    parts = [name for name in found if name != "_done.json"]
    assert parts == list(whole)[1 : len(parts) + 1]
    if done:
        assert found == whole
        assert {path.name for path in folder.iterdir()} == {*whole, ".lock"}


def main(where: str, root: Path, run: Run) -> int:
    """Run and kill; how many runs died."""
    piecewise.PART_ROWS, piecewise.SAVED_ROWS = PART_ROWS, SAVED_ROWS
    tables.PIECE_ROWS = PIECE_ROWS
    count = root / "count"
    output = root / "whole"
    assert ended(forked(run, output, 0, count))
    total, whole = int(count.read_text()), digests(output)
    assert next(iter(whole)) == "_done.json"
    died = 0
    if where == "everywhere":
        for number in range(1, total + 1):
            output = root / "killed"
            shutil.rmtree(output, ignore_errors=True)
            assert not ended(forked(run, output, number, count))
            died += 1
            check(output, whole, done=False)
            assert ended(forked(run, output, 0, count))
            check(output, whole, done=True)
        return died
    draw = random.Random(7)
    output = root / "killed"
    for _ in range(2000):
        child = forked(run, output, 12 if where == "again" else 0, count)
        if where == "anytime":
            time.sleep(draw.uniform(0.01, 0.1 + died / 50))
            os.kill(child, signal.SIGKILL)
        if ended(child):
            check(output, whole, done=True)
            return died
        died += 1
        check(output, whole, done=False)
    raise AssertionError("no run gets through")


def backfilled(features: Path, log: Path) -> Run:
    """The command ``backfill``."""
    definition = backfill.load(features)
    return lambda output: backfill.run(
        backfill.Request(definition=definition, log=log, output=output), Unseen()
    )


def scored(bundle: Path, log: Path) -> Run:
    """The command ``score``."""
    import onnxruntime  # noqa: F401  # before the forks

    return lambda output: batch_scoring.run(
        batch_scoring.Request(bundle=bundle, log=log, output=output), Unseen()
    )


if __name__ == "__main__":
    where, root, command, what, log = sys.argv[1:]
    made = {"backfill": backfilled, "score": scored}[command](Path(what), Path(log))
    print(main(where, Path(root), made))
