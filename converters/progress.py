"""What a person sees while a build runs."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from converters import summary
from converters.conversion import Conversion
from converters.reproducing import Reproduction
from edge_core.bundle.manifest import Manifest
from edge_core.release import ReleaseRef


class ConsoleReport:
    """Shows what runs and what is done; may be told from several threads.

    On a terminal the running stages stand in one live block; anywhere else each finished stage
    is one plain line. Stages of one name may run side by side.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, list[tuple[TaskID | None, float]]] = defaultdict(list)
        self._live: Progress | None = None

    def __enter__(self) -> "ConsoleReport":
        if self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,  # what tools print stays where `silenced` sends it
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def started(self, name: str) -> None:
        """Show that a stage runs."""
        with self._lock:
            task = self._live.add_task(escape(name), total=None) if self._live else None
            self._running[name].append((task, self._clock()))

    def finished(self, name: str, seconds: float, cached: bool = False) -> None:
        """Show that a stage is done; ``cached`` where its product was there already."""
        self._end(name)
        self._tell(f"  {name}: {'from cache' if cached else f'{seconds:.1f} s'}")

    def failed(self, name: str) -> None:
        """Show that a stage failed; why is told by the refusal."""
        begun = self._end(name)
        after = "" if begun is None else f" after {self._clock() - begun:.1f} s"
        self._tell(f"  {name}: failed{after}")

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a step for as long as it runs."""
        begun = self._clock()
        self.started(name)
        try:
            yield
        except BaseException:
            self.failed(name)
            raise
        self.finished(name, self._clock() - begun)

    def _end(self, name: str) -> float | None:
        """Take one stage of that name out of the block; when it began, none if nobody said."""
        with self._lock:
            running = self._running.get(name)
            if not running:
                return None
            task, begun = running.pop(0)
            if self._live is not None and task is not None:
                self._live.remove_task(task)
            return begun

    def _tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)


@contextlib.contextmanager
def shown(console: Console) -> Iterator[ConsoleReport]:
    """Report to the console for as long as the context lasts.

    Stages silence standard output while their tools run (``converters.quiet``); the report
    therefore writes to a copy of the console's stream.
    """
    with _own_stream(console) as kept, ConsoleReport(kept) as report:
        yield report


@contextlib.contextmanager
def _own_stream(console: Console) -> Iterator[Console]:
    """The same console over a copy of its stream; itself where that is no file."""
    try:
        console.file.flush()
        copy = os.dup(console.file.fileno())
    except (AttributeError, OSError, ValueError):
        yield console
        return
    with open(copy, "w", encoding=console.encoding, errors="replace") as file:  # noqa: PTH123  # no path
        yield Console(
            file=file,
            width=console.width if console.is_terminal else None,
            force_terminal=console.is_terminal,
            highlight=False,
            soft_wrap=True,
        )


def summarise(console: Console, manifest: Manifest, out: Path, *, all_gates: bool = False) -> None:
    """Show what a build made and where it stands."""
    summary.show(console, manifest, None, all_gates=all_gates)
    console.print(f"bundle in {out}", markup=False, highlight=False)


def describe(
    console: Console, manifest: Manifest, ref: ReleaseRef | None, *, all_gates: bool = False
) -> None:
    """Show what a bundle says about itself."""
    summary.show(console, manifest, ref, all_gates=all_gates)


def show_conversion(console: Console, made: Conversion, out: Path) -> None:
    """Show what a conversion made and where it stands."""
    rows = f"{made.calibration_rows} rows calibrated, {made.held_out_rows} others measured"
    summary.show_conversion(console, made, f"{made.name}: {rows}")
    console.print(f"conversion in {out}", markup=False, highlight=False)


def show_reproduction(console: Console, found: Reproduction) -> None:
    """Show file by file whether a release came out the same again."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("file", "outcome", "detail"):
        table.add_column(column, overflow="fold")
    for file in found.files:
        table.add_row(Text(file.path), Text(file.outcome), Text(file.detail))
    console.print(table)
    console.print(f"built from {found.data}", markup=False, highlight=False)
    for difference in found.differences:
        console.print(f"differs from the first build: {difference}", markup=False, highlight=False)
    same = sum(file.outcome == "identical" for file in found.files)
    console.print(
        f"{found.release}: {same} of {len(found.files)} files are identical to the byte",
        markup=False,
        highlight=False,
    )
