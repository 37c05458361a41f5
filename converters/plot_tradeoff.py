"""Draws accuracy against size and latency: one number for each variant, explained beside."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from converters import figures
from converters.evidence import Evidence
from converters.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from edge_core.bundle.manifest import VariantRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

FAMILIES = {
    "cpu": ("o", BLUE),
    "mcu": ("s", ORANGE),
    "npu": ("^", GREEN),
    "gpu": ("D", PURPLE),
}
OTHER = ("v", SKY)
NEAR = 18.0
"""Pixels within which points share one label."""
LETTER = 7.5
"""Pixels that one letter of a label takes."""
CLEAR = 8
"""Pixels around a point's middle that its mark covers."""
LEAST_SPREAD = 0.03
"""A smaller range of the metric would make noise look large."""


class Point(NamedTuple):
    """One variant in one panel."""

    number: int
    variant: VariantRecord
    x: float
    y: float
    hollow: bool
    """Estimated, not measured."""


def draw(evidence: Evidence) -> "Figure":
    """Two panels and a key below them."""
    from matplotlib.figure import Figure

    variants = evidence.manifest.variants
    metric = figures.main_metric(evidence.manifest)
    key = 0.21 * (len(variants) + 1)
    figure = Figure(figsize=(9.2, 3.9 + key))
    grid = figure.add_gridspec(
        2,
        2,
        height_ratios=(3.1, key),
        left=0.08,
        right=0.975,
        top=1 - 0.42 / (3.9 + key),
        bottom=0.01,
        wspace=0.16,
        hspace=0.62 / ((3.1 + key) / 2),
    )
    left = figure.add_subplot(grid[0, 0])
    right = figure.add_subplot(grid[0, 1], sharey=left)
    sizes, times = _points(evidence, metric)
    _height(left, evidence, metric)
    left.set_ylabel(f"{metric} on the test set")
    _panel(left, sizes, figures.size_text, f"{metric} against file size", log=False)
    left.set_xlabel("size of the model file")
    _panel(right, times, figures.time_text, f"{metric} against latency of one answer", log=True)
    right.set_xlabel("latency (filled: measured, hollow: the tool's estimate)")
    _references(left, evidence, metric)
    _references(right, evidence, metric)
    figure.draw_without_rendering()
    _label(left, sizes)
    _label(right, times)
    _key(figure.add_subplot(grid[1, :]), evidence, metric)
    return figure


def _points(evidence: Evidence, metric: str) -> tuple[list[Point], list[Point]]:
    """What the panels show; a variant that was never run has no accuracy to show."""
    sizes, times = [], []
    for number, variant in enumerate(evidence.manifest.variants, 1):
        if metric not in variant.metrics:
            continue
        y = variant.metrics[metric]
        size = float(figures.size_bytes(evidence.manifest, variant))
        sizes.append(Point(number, variant, size, y, hollow=False))
        if (found := figures.latency(variant)) is not None and found.us > 0:
            times.append(Point(number, variant, found.us, y, hollow=found.kind == "estimated"))
    return sizes, times


def _height(axes: "Axes", evidence: Evidence, metric: str) -> None:
    """Range of the metric over variants and fp32, and the fallback unless it is far away."""
    values = [v.metrics[metric] for v in evidence.manifest.variants if metric in v.metrics]
    if metric in evidence.floating:
        values.append(evidence.floating[metric])
    spread = max(max(values) - min(values), LEAST_SPREAD)
    if metric in evidence.fallback and abs(evidence.fallback[metric] - min(values)) < 2 * spread:
        values.append(evidence.fallback[metric])
    low, high = min(values), max(values)
    room = max((high - low) * 0.18, (LEAST_SPREAD - (high - low)) / 2)
    axes.set_ylim(low - room, high + room)


def _panel(
    axes: "Axes", points: Sequence[Point], unit: Callable[[float], str], title: str, *, log: bool
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_title(title)
    axes.grid(color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    if not points:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "not known for any variant", transform=axes.transAxes, ha="center")
        return
    low, high = min(p.x for p in points), max(p.x for p in points)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, high * 1.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: unit(x)))
    for point in points:
        marker, colour = _look(point.variant)
        axes.plot(
            point.x,
            point.y,
            marker=marker,
            markersize=8,
            markeredgewidth=1.5,
            linestyle="none",
            color=colour,
            markerfacecolor="white" if point.hollow else colour,
        )


def _look(variant: VariantRecord) -> tuple[str, str]:
    return FAMILIES.get(variant.target.partition("-")[0], OTHER)


def _references(axes: "Axes", evidence: Evidence, metric: str) -> None:
    """Lines for fp32 and the fallback, named at the left edge; a note where one is far off."""
    low, high = axes.get_ylim()
    for name, side, colour, style, above in (
        ("fp32", evidence.floating, GREY, "--", True),
        ("fallback", evidence.fallback, RED, ":", False),
    ):
        if metric not in side:
            continue
        if not low < side[metric] < high:
            below = side[metric] <= low
            axes.text(
                0.01,
                0.02 if below else 0.98,
                f"{name} {side[metric]:.3f}, {'below' if below else 'above'} this range",
                transform=axes.transAxes,
                va="bottom" if below else "top",
                color=colour,
                fontsize=8,
            )
            continue
        axes.axhline(side[metric], color=colour, linestyle=style, linewidth=1.3, zorder=1)
        axes.annotate(
            f"{name} {side[metric]:.3f}",
            (0.01, side[metric]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=colour,
            fontsize=8,
        )


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "_Box") -> float:
        """Shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def _label(axes: "Axes", points: Sequence[Point]) -> None:
    """Write numbers beside points, moved off each other, off points and off the edges."""
    places = {p.number: _moved(axes.transData, p.x, p.y) for p in points}
    marks = [_Box(x - CLEAR, y - CLEAR, x + CLEAR, y + CLEAR) for x, y in places.values()]
    frame = axes.get_window_extent()
    taken: list[_Box] = []
    for group in _groups(points, places):
        text = ", ".join(str(number) for number in group)
        width = LETTER * len(text) + 6
        x = sum(places[n][0] for n in group) / len(group)
        y = sum(places[n][1] for n in group) / len(group)
        best = min(
            _candidates(x, y, width),
            key=lambda box: (
                sum(box.overlap(other) for other in (*taken, *marks))
                + 1000.0 * (box.left < frame.x0 or box.right > frame.x1)
                + 1000.0 * (box.bottom < frame.y0 or box.top > frame.y1)
            ),
        )
        taken.append(best)
        centre = ((best.left + best.right) / 2, (best.bottom + best.top) / 2)
        axes.annotate(
            text,
            _moved(axes.transData.inverted(), *centre),
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold",
        )


def _moved(transform: "Transform", x: float, y: float) -> tuple[float, float]:
    moved = transform.transform((x, y))
    return float(moved[0]), float(moved[1])


def _groups(points: Sequence[Point], places: dict[int, tuple[float, float]]) -> list[list[int]]:
    """Numbers of points that lie on or near one another."""
    groups: list[list[int]] = []
    for point in points:
        x, y = places[point.number]
        for group in groups:
            x0, y0 = places[group[0]]
            if abs(x - x0) < NEAR and abs(y - y0) < NEAR / 2:
                group.append(point.number)
                break
        else:
            groups.append([point.number])
    return groups


def _candidates(x: float, y: float, width: float) -> list[_Box]:
    """Places for a label, the best first."""
    found = []
    for far in (0.0, 10.0, 22.0):
        side, up = CLEAR + 3 + far + width / 2, CLEAR + 7 + far
        for dx, dy in ((0, up), (side, 0), (0, -up), (-side, 0), (side, up), (-side, -up)):
            middle_x, middle_y = x + dx, y + dy
            found.append(
                _Box(middle_x - width / 2, middle_y - 7, middle_x + width / 2, middle_y + 7)
            )
    return found


def _key(axes: "Axes", evidence: Evidence, metric: str) -> None:
    """What the numbers stand for, with the figures that the panels show."""
    variants = evidence.manifest.variants
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(variants) + 0.6, -0.6)
    columns = (0.045, 0.27, 0.42, 0.51, 0.60)
    heads = ("variant", "scheme", metric, "size", "latency")
    for x, head in zip(columns, heads, strict=True):
        axes.text(x, 0, head, fontweight="bold", va="center", fontsize=8.5)
    for number, variant in enumerate(variants, 1):
        marker, colour = _look(variant)
        axes.plot(0, number, marker=marker, color=colour, markersize=6, clip_on=False)
        axes.text(0.036, number, str(number), fontweight="bold", va="center", ha="right", size=8.5)
        size = figures.size_text(figures.size_bytes(evidence.manifest, variant))
        accuracy = figures.share(variant.metrics.get(metric)) if variant.metrics else "not run"
        cells = (_short(variant.target), figures.scheme(variant), accuracy, size, _time(variant))
        for x, cell in zip(columns, cells, strict=True):
            axes.text(x, number, cell, va="center", fontsize=8.5)


def _short(name: str) -> str:
    return name if len(name) <= 27 else f"{name[:26]}…"


def _time(variant: VariantRecord) -> str:
    found = figures.latency(variant)
    if found is None:
        return "not measured"
    by = found.by if len(found.by) <= 32 else f"{found.by[:31]}…"
    return f"{figures.time_text(found.us)} {found.kind}: {by}"
