"""Makes and lists data snapshots for people."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters import figures, recipe
from converters.cache import Cache, default_folder
from converters.data import snapshot_store
from converters.data.snapshot_record import SnapshotRecord
from converters.data.snapshot_store import Listed, Store, Stored
from converters.data.taking import TakeData, ToTake
from converters.pipeline import Pipeline, Report

SHORT = 12
"""Digits of an id that a person is shown; 8 are enough to name one."""


def take(folder: Path, release: str | None, data: Path | None, report: Report) -> Stored:
    """Keep a recipe's data.

    Args:
        folder: of the recipe.
        release: which of its releases; its settings may choose the data.
        data: folder of snapshots.
        report: told of progress.

    Raises:
        SerinusError: wrong use, or bad input; nothing is kept then.
    """
    chosen = recipe.load(folder, release)
    pipeline = Pipeline(report, time.monotonic, Cache(default_folder()))
    return pipeline.run(TakeData(), ToTake(folder=folder, recipe=chosen, store=_store(data)))


def kept(data: Path | None) -> list[Listed]:
    """Everything that was kept."""
    return _store(data).everything()


def show(console: Console, stored: Stored) -> None:
    """Its files, and where it lies."""
    record = stored.record
    _say(console, f"{record.name}, {_span(record)}")
    _say(console, f"from {record.source}")
    for name, value in (record.settings or {}).items():
        _say(console, f"chosen by {name} = {value!r}")
    table = _table(("file", "rows", "columns", "size", "sha256"), right=(1, 2, 3))
    for path, one in record.files.items():
        size = figures.size_text(one.size)
        table.add_row(path, f"{one.rows:,}", str(len(one.columns)), size, one.sha256[:SHORT])
    console.print(table)
    _say(console, f"data snapshot {record.id}")
    _say(console, f"in {stored.folder}")


def show_all(console: Console, found: Sequence[Listed]) -> None:
    """One line for each."""
    if not found:
        _say(console, "no data snapshot was kept yet: serinus-convert snapshot RECIPE")
        return
    table = _table(("id", "data", "kind", "rows", "time span", "size", "state"), right=(3, 5))
    table.columns[0].no_wrap = True
    for entry in found:
        record = entry.record
        facts = ("?",) * 5
        if record is not None:
            rows = max(one.rows for one in record.tables.values())
            size = figures.size_text(record.size)
            days = f"{record.first[:10]} to {(record.last or '')[:10]}" if record.first else "none"
            facts = (record.name, record.kind, f"{rows:,}", days, size)
        state = Text(entry.damage or "whole", style="bold red" if entry.damage else "green")
        table.add_row(entry.id[:SHORT], *facts, state)
    console.print(table)


def _store(data: Path | None) -> Store:
    return Store(data or snapshot_store.default_folder())


def _span(record: SnapshotRecord) -> str:
    return f"{record.first} to {record.last}" if record.first else "no wall-clock times"


def _table(heads: Sequence[str], right: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, overflow="fold", justify="right" if place in right else "left")
    return table


def _say(console: Console, text: str) -> None:
    console.print(Text(figures.printable(text)), soft_wrap=not console.is_terminal)
