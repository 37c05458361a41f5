"""The table at a build's end: one row for each variant, then the gates that people must see."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters import figures
from converters.figures import Built
from edge_core.bundle.manifest import GateResult, Manifest, VariantRecord
from edge_core.release import ReleaseRef

WIDE = 110
"""Columns from which the table says more."""


class _Column(NamedTuple):
    head: str
    cell: Callable[[VariantRecord], str]
    right: bool = True


def show(console: Console, manifest: Manifest, ref: ReleaseRef | None, *, all_gates: bool) -> None:
    """Show a release: what it is, its variants, its gates."""
    title = f"{manifest.model} {manifest.version}"
    _say(console, title + (f"  {ref.digest}" if ref else ""), style="bold")
    if manifest.description:
        _say(console, manifest.description)
    _say(console, _whole(manifest))
    _say(console, _data(manifest), style="dim")
    if manifest.output.coordinates:
        _say(console, _embedding(manifest), style="dim")
    _variants(console, manifest)
    _gates(console, manifest, all_gates=all_gates)


def show_conversion(console: Console, made: Built, title: str) -> None:
    """Show a conversion without a release: its variants, its gates."""
    _say(console, title, style="bold")
    _variants(console, made)
    _gates(console, made, all_gates=False)


def _say(console: Console, text: str, style: str = "") -> None:
    """One line on a pipe, wrapped at words on a terminal."""
    shown = Text(figures.printable(text), style=style)
    console.print(shown, soft_wrap=not console.is_terminal)


def _whole(manifest: Manifest) -> str:
    """Overall figures and the worst slice."""
    metric = figures.main_metric(manifest)
    told = [f"{name} {value:.3f}" for name, value in manifest.metrics.items() if "/" not in name]
    worst = figures.worst_slice(manifest.metrics, metric, figures.thin_slices(manifest.gates))
    if worst:
        told.append(f"worst slice {worst[0]} {worst[1]:.3f}")
    return ", ".join(told) or "no figures"


def _data(manifest: Manifest) -> str:
    """What it was trained and tested on."""
    rows = {record.role: record.rows for record in manifest.datasets}
    counts = ", ".join(f"{role} {count:,}" for role, count in rows.items())
    kept = manifest.snapshot
    if kept is None:
        return f"rows: {counts}; no data snapshot"
    span = f", {kept.first[:10]} to {(kept.last or '')[:10]}" if kept.first else ""
    return f"rows: {counts}; data {kept.name}{span}, snapshot {kept.id[:12]}"


def _embedding(manifest: Manifest) -> str:
    """The second output, and how far a variant is off at most."""
    errors = [figures.embedding_error(variant) for variant in manifest.variants]
    told = f"embedding: {manifest.output.coordinates} coordinates"
    known = [error for error in errors if error is not None]
    return f"{told}, error at most {figures.number(max(known))}" if known else told


def _variants(console: Console, manifest: Built) -> None:
    wide = console.width >= WIDE
    table = _table(1 if wide else 0)
    columns = _columns(manifest, wide=wide)
    for column in columns:
        table.add_column(
            column.head,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.right,
        )
    for variant in manifest.variants:
        table.add_row(*(Text(figures.printable(column.cell(variant))) for column in columns))
    console.print(table, soft_wrap=False)
    notes = ["error: rms difference from fp32 over its standard deviation"]
    if any((t := figures.latency(v)) and t.kind == "estimated" for v in manifest.variants):
        notes.append("~ estimated by the target's tool")
    if any(figures.where_run(v) == "simulated" for v in manifest.variants):
        notes.append(
            "sim: not on the target's own hardware"
            if not wide
            else "simulated: not on the target's own hardware"
        )
    _say(console, "; ".join(notes), style="dim")


def _table(gap: int) -> Table:
    return Table(box=SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)


def _columns(manifest: Built, *, wide: bool) -> list[_Column]:
    metric = figures.main_metric(manifest)
    thin = figures.thin_slices(manifest.gates)

    def worst(variant: VariantRecord) -> str:
        found = figures.worst_slice(variant.metrics, metric, thin)
        if found is None:
            return figures.UNKNOWN
        return f"{found[1]:.3f}" + (f" {found[0]}" if wide else "")

    def size(variant: VariantRecord) -> str:
        text = figures.size_text(figures.size_bytes(manifest, variant))
        return text + (f" ({variant.size_ratio:.2f})" if wide else "")

    return [
        _Column("target", lambda v: v.target, right=False),
        _Column("scheme", _scheme if not wide else figures.scheme, right=False),
        _Column("size (of fp32)" if wide else "size", size),
        _Column("error", lambda v: _error(v.numeric_error)),
        _Column("top-1", lambda v: figures.share(v.top1_agreement)),
        _Column(metric, lambda v: figures.share(v.metrics.get(metric))),
        _Column("worst slice" if wide else "worst", worst),
        _Column("latency", _latency),
        _Column("placed", lambda v: _placed(v), right=False),
        _Column("ran on" if wide else "ran", _ran_wide if wide else _ran, right=False),
    ]


def _scheme(variant: VariantRecord) -> str:
    """Short enough for 80 columns."""
    return {"int8 static": "int8", "int8 weight-only": "int8 w"}.get(
        figures.scheme(variant), figures.scheme(variant)
    )


def _error(value: float | None) -> str:
    return figures.UNKNOWN if value is None else f"{value:.4f}"


def _latency(variant: VariantRecord) -> str:
    found = figures.latency(variant)
    if found is None:
        return figures.UNKNOWN
    return ("~" if found.kind == "estimated" else "") + figures.time_text(found.us)


def _placed(variant: VariantRecord) -> str:
    """Whether every operator runs where the target wants it; a dash where nobody looked."""
    if variant.misplaced:
        return f"{len(variant.misplaced)} off"
    return "ok" if variant.placement else figures.UNKNOWN


def _ran(variant: VariantRecord) -> str:
    return {"hardware": "hw", "simulated": "sim", "not run": "no"}[figures.where_run(variant)]


def _ran_wide(variant: VariantRecord) -> str:
    return figures.where_run(variant)


def _gates(console: Console, manifest: Built, *, all_gates: bool) -> None:
    passed = [gate for gate in manifest.gates if gate.outcome == "passed"]
    shown = [g for g in manifest.gates if all_gates or g.outcome != "passed"]
    if shown:
        console.print()
        console.print(_gate_table(shown), soft_wrap=False)
    for waiver in manifest.waivers:
        where = f" on {waiver.slice}" if waiver.slice else ""
        _say(console, f"waived {waiver.gate}{where}: {waiver.reason}", style="yellow")
    waived = sum(gate.waived for gate in manifest.gates)
    unwaived = len(figures.unwaived(manifest.gates))
    text = f"{len(passed)} gates passed"
    text += f", {waived} waived" if waived else ""
    text += f", {unwaived} NOT PASSED" if unwaived else ""
    _say(console, text, style="bold red" if unwaived else "yellow" if waived else "green")


def _gate_table(gates: Sequence[GateResult]) -> Table:
    table = _table(1)
    for head in ("gate", "target", "slice"):
        table.add_column(head, overflow="fold")
    for head in ("value", "limit"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("outcome", overflow="fold")
    for gate in gates:
        detail = f": {gate.detail}" if gate.detail and gate.outcome != "passed" else ""
        rows = f" ({gate.rows} rows)" if gate.rows is not None and not detail else ""
        cells = (
            gate.gate,
            gate.target or "all",
            gate.slice or "all",
            figures.number(gate.value),
            figures.number(gate.threshold),
        )
        outcome = Text(
            figures.printable(figures.outcome_text(gate) + detail + rows), style=_style(gate)
        )
        table.add_row(*(Text(figures.printable(cell)) for cell in cells), outcome)
    return table


def _style(gate: GateResult) -> str:
    if gate.outcome == "passed":
        return "green"
    return "yellow" if gate.waived else "bold red"
