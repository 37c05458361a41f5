"""Pictures: right ones, small ones, the same ones each time."""

import dataclasses
import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator

import matplotlib
import msgspec
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from PIL import Image

from converters import plot_confusion, plot_layers, plot_tradeoff, plots
from converters.evidence import Evidence
from edge_core.bundle.manifest import VariantRecord
from tests.converters.sample_evidence import evidence

MAX_BYTES = 150_000


@pytest.fixture(autouse=True)
def as_drawn() -> Iterator[None]:
    """Figures with the settings that files are drawn with."""
    with plots.settled():
        yield


def with_variants(variants: list[VariantRecord]) -> Evidence:
    made = evidence()
    return dataclasses.replace(
        made, manifest=msgspec.structs.replace(made.manifest, variants=variants)
    )


def crowded() -> Evidence:
    """32 variants, as many as a manifest may have, some with latencies, 40 layers each."""
    made = evidence().manifest.variants
    variants = [
        msgspec.structs.replace(
            made[place % 8],
            target=f"cpu-{place}-of-a-rather-long-name",
            latency_us={"1": 10.0 + place},
            layer_errors={f"body.layers.{i}.projection": (i + place) / 1e3 for i in range(40)},
        )
        for place in range(32)
    ]
    return with_variants(variants)


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return plots.draw(evidence())


def test_each_is_a_small_png_without_metadata(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {plots.TRADEOFF, plots.LAYERS, plots.CONFUSION}
    for path, data in drawn.items():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG", path
            assert not picture.info.keys() & {"Software", "Creation Time", "Author"}, path
            assert min(picture.size) > 200, path
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10, path
        assert len(data) < MAX_BYTES, path


def test_the_same_evidence_gives_the_same_bytes_in_another_process(
    drawn: dict[str, bytes],
) -> None:
    code = (
        "import hashlib, matplotlib; matplotlib.rcParams['font.size'] = 30\n"
        "from converters import plots\n"
        "from tests.converters.sample_evidence import evidence\n"
        "for path, data in plots.draw(evidence()).items():\n"
        "    print(path, hashlib.sha256(data).hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{path} {hashlib.sha256(data).hexdigest()}" for path, data in drawn.items()
    ]


def test_many_variants_layers_and_classes_stay_small() -> None:
    made = crowded()
    output = msgspec.structs.replace(
        made.manifest.output, classes=[f"class {i}" for i in range(200)]
    )
    counts = np.random.default_rng(1).integers(0, 9, (200, 200))
    made = dataclasses.replace(
        made,
        manifest=msgspec.structs.replace(made.manifest, output=output),
        confusion={f"region={i}": counts for i in range(9)},
    )
    for path, data in plots.draw(made).items():
        assert len(data) < MAX_BYTES, path


@pytest.mark.parametrize("made", [evidence(), crowded()], ids=["usual", "crowded"])
def test_labels_of_points_do_not_cover_one_another(made: Evidence) -> None:
    figure = plot_tradeoff.draw(made)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    for axes in figure.axes[:2]:
        labels = [
            child
            for child in axes.get_children()
            if isinstance(child, Annotation) and child.get_fontweight() == "bold"
        ]
        assert labels
        boxes = [label.get_window_extent(renderer).padded(-1) for label in labels]
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:place])
        named = [int(n) for label in labels for n in label.get_text().split(",")]
        assert sorted(set(named)) == sorted(named)


def test_a_variant_that_never_ran_has_no_point() -> None:
    figure = plot_tradeoff.draw(evidence())
    labels = " ".join(
        child.get_text() for child in figure.axes[0].get_children() if isinstance(child, Annotation)
    )
    assert "9" in labels
    assert "10" not in labels
    assert "not run" in {text.get_text() for text in figure.axes[2].texts}


def test_layers_are_ranked_and_float_ones_marked() -> None:
    figure = plot_layers.draw(evidence())
    assert len(figure.axes) == 2  # three variants measured, two share one file
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[0] == "body.block.depthwise"
    assert names[-1] == "body.logits"
    widths = [bar.get_width() for bar in left.patches if isinstance(bar, Rectangle)]
    assert len(widths) == len(names)
    assert widths == sorted(widths, reverse=True)
    assert any("left in float" in text.get_text() for text in right.texts)
    assert not any("left in float" in text.get_text() for text in left.texts)


def test_confusion_shows_shares_of_rows_and_counts() -> None:
    made = evidence()
    figure = plot_confusion.draw(made)
    whole = figure.axes[0]
    shares = np.asarray(whole.images[0].get_array())
    assert np.allclose(shares.sum(axis=1), 1)
    written = {text.get_text() for text in whole.texts}
    assert {str(count) for count in made.confusion["all"][made.confusion["all"] > 0]} == written
    assert whole.get_title(loc="left") == "all test rows (175 rows)"


def test_nothing_is_drawn_of_nothing() -> None:
    made = evidence()
    unrun = with_variants([made.manifest.variants[-1]])
    assert plots.draw(dataclasses.replace(unrun, confusion={})) == {}


def test_odd_names_are_text_and_settings_stay_as_they_were() -> None:
    made = evidence()
    classes = ["$x_", "数字", "a\\b", "%s", "{0}", "$\\frac", ""]
    output = msgspec.structs.replace(made.manifest.output, classes=classes)
    before = dict(matplotlib.rcParams)
    odd = dataclasses.replace(made, manifest=msgspec.structs.replace(made.manifest, output=output))
    assert plots.draw(odd)[plots.CONFUSION]
    assert dict(matplotlib.rcParams) == before


def test_no_global_state_of_pyplot_is_touched() -> None:
    code = (
        "import sys; from converters import plots\n"
        "from tests.converters.sample_evidence import evidence\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.draw(evidence())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(plot_layers.draw(evidence()), Figure)
