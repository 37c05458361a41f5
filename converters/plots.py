"""Pictures for the model card: the same evidence always gives the same bytes.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; nothing is
told by colour alone.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from converters import figures
from converters.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
COLOURS = 256
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
GREY = "#6B6B6B"

TRADEOFF = "card/tradeoff.png"
LAYERS = "card/layers.png"
CONFUSION = "card/confusion.png"


class Plot(NamedTuple):
    """One picture of the card."""

    path: str
    """Below the bundle folder."""
    caption: str


def planned(evidence: Evidence) -> list[Plot]:
    """The pictures that this evidence gives; draws nothing and is fast."""
    found = []
    if any(variant.metrics for variant in evidence.manifest.variants):
        title = figures.metric_title(figures.main_metric(evidence.manifest))
        found.append(
            Plot(TRADEOFF, f"{title} of each variant against its file's size and its latency")
        )
    if any(variant.layer_errors for variant in evidence.manifest.variants):
        found.append(Plot(LAYERS, "Numeric error that quantising each layer alone adds"))
    if any(counts.sum() for counts in evidence.confusion.values()):
        found.append(Plot(CONFUSION, "True against answered classes, for all rows and each slice"))
    return found


def draw(evidence: Evidence) -> dict[str, bytes]:
    """Draw the planned pictures.

    Returns:
        Path below the bundle folder -> PNG file, each below 150 kB.
    """
    from converters import plot_confusion, plot_layers, plot_tradeoff

    makers: dict[str, Callable[[Evidence], Figure]] = {
        TRADEOFF: plot_tradeoff.draw,
        LAYERS: plot_layers.draw,
        CONFUSION: plot_confusion.draw,
    }
    with settled():
        return {plot.path: _png(makers[plot.path](evidence)) for plot in planned(evidence)}


@contextmanager
def settled() -> Iterator[None]:
    """The library's own defaults, whatever a person has configured; names are not formulas."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a class's name
        matplotlib.rcdefaults()
        matplotlib.rcParams |= {
            "text.parse_math": False,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "figure.dpi": DPI,
        }
        yield


def _png(figure: "Figure") -> bytes:
    """Few colours and no metadata: small files that tell no tool and no time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # as above
    picture = Image.fromarray(pixels).convert("RGB")
    made = io.BytesIO()
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(made, format="PNG", optimize=True)
    return made.getvalue()
