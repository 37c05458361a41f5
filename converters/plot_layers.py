"""Draws how much numeric error each layer adds when it alone is quantised, the worst first."""

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from converters import figures
from converters.evidence import Evidence
from converters.plots import BLUE, ORANGE
from edge_core.bundle.manifest import VariantRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 16
MAX_PANELS = 4


class Measured(NamedTuple):
    """Variants that share one measurement, as those that share a quantised file do."""

    errors: dict[str, float]
    float_layers: frozenset[str]
    variants: list[VariantRecord]


def draw(evidence: Evidence) -> "Figure":
    """One panel for each measurement."""
    from matplotlib.figure import Figure

    groups = _groups(evidence.manifest.variants)
    shown = groups[:MAX_PANELS]
    bars = max(min(len(group.errors), MAX_LAYERS) for group in shown)
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(9.2, rows * (1.5 + 0.26 * bars)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for place, panel in enumerate(axes.flat):
        if place < len(shown):
            _panel(panel, shown[place], columns, bars)
        else:
            panel.set_axis_off()
    left_out = len(groups) - len(shown)
    more = f"; {left_out} more measured, not shown" if left_out else ""
    figure.suptitle(
        f"Numeric error that quantising one layer alone adds{more}",
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
    )
    figure.supxlabel("rms difference of the outputs / their standard deviation", fontsize=9)
    return figure


def _groups(variants: list[VariantRecord]) -> list[Measured]:
    found: list[Measured] = []
    for variant in variants:
        if not variant.layer_errors:
            continue
        wanted = (variant.layer_errors, frozenset(variant.float_layers))
        for group in found:
            if (group.errors, group.float_layers) == wanted:
                group.variants.append(variant)
                break
        else:
            found.append(Measured(*wanted, [variant]))
    return found


def _panel(axes: "Axes", group: Measured, columns: int, most: int) -> None:
    ranked = sorted(group.errors.items(), key=lambda item: (-item[1], item[0]))[:MAX_LAYERS]
    names = [name for name, _ in ranked]
    errors = [error for _, error in ranked]
    floating = [name in group.float_layers for name in names]
    bars = axes.barh(
        range(len(names)),
        errors,
        color=["white" if left else BLUE for left in floating],
        edgecolor=[ORANGE if left else BLUE for left in floating],
        hatch=["////" if left else "" for left in floating],
        height=0.68,
    )
    labels = [
        f"{error:#.2g}{' (left in float)' if left else ''}"
        for error, left in zip(errors, floating, strict=True)
    ]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(most - 0.5, -0.5)
    axes.set_xlim(0, max(max(errors) * 1.45, 1e-9))
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(_title(group, columns), fontsize=9)


def _title(group: Measured, columns: int) -> str:
    targets = ", ".join(variant.target for variant in group.variants)
    whole = figures.number(group.variants[0].numeric_error)
    names = textwrap.wrap(targets, 78 // columns, max_lines=3, placeholder=" …")
    cut = len(group.errors) - MAX_LAYERS
    more = f", {cut} layers with less not shown" if cut > 0 else ""
    return "\n".join([*names, f"whole model: {whole}{more}"])


def _short(name: str) -> str:
    """The end of a path tells more than its beginning."""
    return name if len(name) <= 28 else f"…{name[-27:]}"
