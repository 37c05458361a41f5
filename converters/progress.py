"""What a person sees of a build: steps while it runs, a table at its end."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edge_core.bundle.manifest import Manifest
from edge_core.release import ReleaseRef


class ConsoleReport:
    """Shows the running step, and each finished one with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a step for as long as it runs."""
        started = time.monotonic()
        with self._console.status(f"{name} ..."):
            yield
        self._console.print(f"  {name}: {time.monotonic() - started:.1f} s", markup=False)


@contextlib.contextmanager
def shown(console: Console) -> Iterator[ConsoleReport]:
    """Report to the console for as long as the context lasts."""
    yield ConsoleReport(console)


def summarise(console: Console, manifest: Manifest, out: Path) -> None:
    """Show the gates and where the bundle stands."""
    describe(console, manifest, None)
    console.print(f"bundle in {out}", markup=False)


def describe(console: Console, manifest: Manifest, ref: ReleaseRef | None) -> None:
    """Show what a bundle says about itself."""
    title = f"{manifest.model} {manifest.version}"
    console.print(title + (f"  {ref.digest}" if ref else ""), markup=False)
    console.print(manifest.description, markup=False)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in manifest.metrics.items())
    console.print(figures, markup=False)
    table = Table(title="gates", title_justify="left", box=SIMPLE_HEAD)
    for column in ("gate", "target", "slice", "value", "limit", "outcome"):
        table.add_column(column, overflow="fold")
    for result in manifest.gates:
        table.add_row(
            result.gate,
            result.target or "all",
            result.slice or "all",
            "-" if result.value is None else f"{result.value:.4g}",
            "-" if result.threshold is None else f"{result.threshold:.4g}",
            result.outcome + (" (waived)" if result.waived else ""),
        )
    console.print(table)
    for waiver in manifest.waivers:
        console.print(f"waived {waiver.gate} {waiver.slice or ''}: {waiver.reason}", markup=False)
