"""Draws confusion matrices: share of each true class's rows, with their counts."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converters import figures
from converters.evidence import WHOLE, Confusion, Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6
MAX_ANNOTATED = 12
"""Classes up to which each field has its count."""
FEW = 3
"""Classes up to which their names stand upright."""
MAX_NAMED = 30
"""Classes up to which the axes have names."""


def draw(evidence: Evidence) -> "Figure":
    """One panel for all rows and one for each slice that has rows."""
    from matplotlib.figure import Figure

    names = [name for name, counts in evidence.confusion.items() if counts.sum()]
    if len(names) > MAX_PANELS:
        names.sort(key=lambda name: _figure(evidence, name))
    names.sort(key=lambda name: name != WHOLE)
    shown = names[:MAX_PANELS]
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    wide = {1: 4.8, 2: 3.8}.get(columns, 3.1)
    figure = Figure(figsize=(wide * columns, (wide + 0.5) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    classes = evidence.manifest.output.classes
    for place, panel in enumerate(axes.flat):
        if place < len(shown):
            name = shown[place]
            _panel(panel, name, evidence.confusion[name], classes, first=place % columns == 0)
        else:
            panel.set_axis_off()
    left_out = len(names) - len(shown)
    more = f"; the worst slices, {left_out} more are not shown" if left_out else ""
    counted = ", numbers are rows" if len(classes) <= MAX_ANNOTATED else ""
    figure.suptitle(
        f"Answers for each true class: shade is the share of its rows{counted}{more}",
        x=0.01,
        ha="left",
        fontsize=9 if columns > 1 else 7.5,
        fontweight="bold",
    )
    return figure


def _figure(evidence: Evidence, name: str) -> float:
    """What the release's main figure is on a slice."""
    metrics = evidence.manifest.metrics
    return metrics.get(f"{figures.main_metric(evidence.manifest)}/{name}", 1.0)


def _panel(axes: "Axes", name: str, counts: Confusion, classes: list[str], *, first: bool) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.spines[:].set_visible(False)
    title = "all test rows" if name == WHOLE else name
    axes.set_title(f"{title} ({counts.sum()} rows)")
    by_number = len(classes) > MAX_NAMED
    axes.set_xlabel("answered (number of class)" if by_number else "answered")
    if not by_number:
        places = range(len(classes))
        labels = [_short(label) for label in classes]
        axes.set_xticks(places, labels, rotation=90 * (len(classes) > FEW), fontsize=8)
        axes.set_yticks(places, labels if first else [""] * len(labels), fontsize=8)
        axes.tick_params(length=0)
    if first:
        axes.set_ylabel("true class (number)" if by_number else "true class")
    if len(classes) <= MAX_ANNOTATED:
        _annotate(axes, counts, shares)


def _annotate(axes: "Axes", counts: Confusion, shares: npt.NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if shares[row, column] > 0.55 else "black",
        )


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
