"""Shows a comparison to a person: figures in full, of the rest only what differs."""

import re

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters import figures
from converters.comparing import Comparison, Row, Section, Value

WIDE = 110
"""Columns from which the table has room for wider gaps."""

FIGURES = ("share", "bytes", "us")
"""Units of what is shown of a variant that differs, equal or not."""

_DIGEST = re.compile(r"\b[0-9a-f]{40,64}\b")


def show(console: Console, comparison: Comparison, *, everything: bool = False) -> None:
    """Print both sides with ``!=`` where they differ; ``everything`` shows equal facts, too."""
    _say(console, f"a: {comparison.a}", "bold")
    _say(console, f"b: {comparison.b}", "bold")
    for note in comparison.notes:
        _say(console, f"note: {note}", "yellow")
    for section in comparison.sections:
        _section(console, section, everything=everything or section.name == "metrics")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(figures.printable(text), style=style), soft_wrap=not console.is_terminal)


def _section(console: Console, section: Section, *, everything: bool) -> None:
    rows = section.rows if everything else _worth_showing(section)
    hidden = len(section.rows) - len(rows)
    console.print()
    if not rows:
        _say(console, f"{section.name}: all {hidden} facts are equal", "dim")
        return
    changes = any(row.unit != "text" for row in rows)
    table = _table(section.name, changes=changes, gap=console.width >= WIDE)
    target = ""
    for row in rows:
        if row.target != target:
            target = row.target
            table.add_row(Text(_short(target), style="bold"))
        name = f"  {row.name.removeprefix(target + ': ')}" if target else row.name
        _add(table, row, name, changes=changes)
    console.print(table, soft_wrap=False)
    if hidden:
        _say(console, f"{hidden} more facts are equal", "dim")


def _worth_showing(section: Section) -> list[Row]:
    """What differs, and the figures of variants of which anything differs."""
    differing = {row.target for row in section.rows if row.differs} - {""}
    return [
        row
        for row in section.rows
        if row.differs or (row.target in differing and row.unit in FIGURES)
    ]


def _table(name: str, *, changes: bool, gap: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, int(gap), 0, 0), pad_edge=False, show_edge=False)
    table.add_column(name, overflow="fold")
    table.add_column("")
    for head in ("a", "b"):
        table.add_column(head, overflow="fold", justify="right" if changes else "left")
    if changes:
        table.add_column("b - a", overflow="fold", justify="right")
    return table


def _add(table: Table, row: Row, name: str, *, changes: bool) -> None:
    marks = {"a": ("bold", ""), "b": ("", "bold"), None: ("", "")}[row.better]
    cells = [Text(_short(name)), Text("!=" if row.differs else "", style="yellow")]
    cells += [Text(_value(v, row), style=s) for v, s in zip((row.a, row.b), marks, strict=True)]
    if changes:
        cells.append(_change(row))
    table.add_row(*cells)


def _change(row: Row) -> Text:
    if row.note:
        return Text(_short(f"not compared: {row.note}"), style="dim")
    if not row.change:
        return Text("")
    sign = "+" if row.change > 0 else "-"
    style = {"a": "red", "b": "green", None: ""}[row.better]
    word = {"a": " worse", "b": " better", None: ""}[row.better]
    return Text(f"{sign}{_number(abs(row.change), row)}{word}", style=style)


def _value(value: Value, row: Row) -> str:
    if value is None:
        return figures.UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _short(value) if isinstance(value, str) else _number(value, row)


def _number(value: float, row: Row) -> str:
    if row.unit == "share":
        return figures.share(value)
    if row.unit == "bytes":
        return figures.size_text(value)
    return figures.time_text(value) if row.unit == "us" else figures.number(value)


def _short(text: str) -> str:
    """One printable line, digests cut to 12 letters."""
    return _DIGEST.sub(lambda found: found[0][:12], figures.printable(text))
