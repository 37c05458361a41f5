"""What a person sees while rows are computed: how many are done, how fast, and how long it takes.

On a terminal one line that moves; anywhere else a line now and then.
"""

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SAY_EVERY_S = 10.0


class RowProgress:
    """Shows one run."""

    def __init__(
        self, console: Console, what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._what = what
        self._clock = clock
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._begun = self._said = clock()
        self._total = self._before = self._read = self.rows = 0

    def __enter__(self) -> "RowProgress":
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if kind is None and self._read:
            self._console.print(f"{self._what}: {self._line()}", markup=False)

    def begun(self, total: int, read: int) -> None:
        """See :class:`converters.history.piecewise.Report`."""
        self._begun = self._said = self._clock()
        self._total, self._before = total, read
        if read:
            self._console.print(
                f"{self._what}: goes on after {read:,} rows of the log", markup=False
            )
        if self._live is not None:
            self._task = self._live.add_task(
                self._what, total=max(total, 1), completed=read, said=""
            )

    def advanced(self, read: int, rows: int) -> None:
        """See :class:`converters.history.piecewise.Report`."""
        self._read += read
        self.rows += rows
        if self._live is not None and self._task is not None:
            self._live.update(self._task, advance=read, said=self._line())
        elif self._clock() - self._said >= SAY_EVERY_S:
            self._said = self._clock()
            left = max(0, self._total - self._before - self._read)
            seconds = left * (self._clock() - self._begun) / max(self._read, 1)
            self._console.print(
                f"{self._what}: {self._line()}, about {seconds:.0f} s left", markup=False
            )

    def _line(self) -> str:
        elapsed = self._clock() - self._begun
        speed = self._read / max(elapsed, 1e-9)
        return (
            f"{self._before + self._read:,} rows of the log read, {self.rows:,} made in "
            f"{elapsed:.1f} s, {speed:,.0f} rows/s"
        )


def show_counts(console: Console, counts: Mapping[str, Mapping[str, int]]) -> None:
    """What was dropped, by stream; a line where there was none."""
    said = False
    for name, kinds in counts.items():
        found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        if found:
            console.print(f"  {name}: {found}", markup=False)
            said = True
    if not said:
        console.print("  no event was dropped", markup=False)
