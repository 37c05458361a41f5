"""The card tells the truth, the bad part first."""

import dataclasses
import re

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converters import card, card_limits, plots
from converters.evidence import Evidence
from edge_core.bundle.manifest import DataSnapshot, Manifest, Privacy
from tests.converters.sample_evidence import evidence, manifest


def changed(made: Manifest | None = None, **fields: object) -> Evidence:
    made = msgspec.structs.replace(made or manifest(), **fields)
    return dataclasses.replace(evidence(), manifest=made)


def row_of(text: str, heading: str, start: str) -> list[str]:
    """Cells of the first table row below a heading that begins with ``start``."""
    below = text[text.index(heading) :]
    line = next(line for line in below.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_what_did_not_pass_stands_first_with_its_waiver() -> None:
    text = card.render(evidence())
    first, second = re.findall("^## (.*)$", text, re.MULTILINE)[:2]
    assert (first, second) == ("Read this first", "What it is for")
    head = text[: text.index("## What it is for")]
    assert "2 of 5 gates did not pass" in head
    assert "no evidence" in head
    assert "**Waived:** watch on both arms is a rare study" in head
    assert "`gpu-webgpu-ort`: failed (found 1, limit 0)" in head


def test_a_release_without_exceptions_says_so() -> None:
    made = manifest()
    passed = [gate for gate in made.gates if gate.outcome == "passed"]
    text = card.render(changed(gates=passed, waivers=[]))
    assert "All 3 gates passed; nothing was waived." in text
    assert "Read this first" not in text


def test_what_devices_keep_is_said() -> None:
    text = card.render(changed(privacy=Privacy(epsilon=2.0, redacted=["ax", "ay"])))
    assert "Counts leave devices with noise: epsilon 2." in text
    assert "Samples never carry ax, ay." in text
    assert "noise" not in card.render(evidence())


def test_an_unwaived_failure_is_loud() -> None:
    gates = [msgspec.structs.replace(gate, waived=False) for gate in manifest().gates]
    assert card.render(changed(gates=gates)).count("**Not waived.**") == 2


def test_figures_stand_beside_float_fallback_and_their_rows() -> None:
    text = card.render(evidence())
    cells = row_of(text, "Accuracy by slice", "hand=left")
    assert cells[:5] == ["hand=left", "89", "0.854", "0.860", "0.674"]
    low, high = (float(part) for part in cells[5].split(" to "))
    assert low < 0.854 < high
    assert row_of(text, "figure | this release", "macro_f1")[1:] == ["0.835", "0.841", "0.641"]


def test_nothing_is_claimed_that_was_not_run() -> None:
    text = card.render(evidence())
    variants = "## Variants"
    costs = "## Cost and placement"
    assert row_of(text, variants, "`npu-qnn-v75`")[3:] == [
        "-",
        "-",
        "-",
        "-",
        "**no: compiled only**",
    ]
    assert row_of(text, costs, "`npu-qnn-v75`")[1] == "not measured"
    assert row_of(text, costs, "`npu-ethos-u55-128`")[1] == "212 us, **estimated** by vela 5.2.0"
    assert row_of(text, costs, "`cpu-x86_64-ort`")[1].startswith("batch 1: 10.2 us")
    assert row_of(text, variants, "`cpu-aarch64-ort`")[7].startswith("no: ")
    assert row_of(text, variants, "`cpu-x86_64-ort`")[7].startswith("yes: ")
    assert row_of(text, costs, "`gpu-webgpu-ort`")[4] == "**Clip_3 runs on the CPU**"
    assert row_of(text, costs, "`cpu-x86_64-tflite`")[5] == "body.block.depthwise"


def test_what_it_was_made_of_is_told() -> None:
    text = card.render(evidence())
    for fact in (
        "| train | 587 | 5 groups |",
        "Data: watch-activity, from watch_activity; not kept",
        "seed 7",
        "`8f3daad836d054dd0efed704511ead2d8c3d89f1`, **with changes that are not in it**",
        "torch 2.13.0",
        "Parent: watch-activity@1.2.0",
        "Teacher: watch-activity@1.2.0",
        "temperature 3",
        "sides left+right",
    ):
        assert fact in text, fact


def test_kept_data_is_named_once_for_all_roles() -> None:
    kept = DataSnapshot(
        id="ab" * 32,
        name="walks",
        source="an | archive",
        schema_sha256="cd" * 32,
        rows={"recordings": 4, "samples": 160_066},
        first="2025-01-02T03:04:05Z",
        last="2025-02-03T04:05:06Z",
    )
    text = card.render(changed(snapshot=kept))
    assert "kept as snapshot `abababababababab` with schema `cdcdcdcdcdcdcdcd`" in text
    assert "from an \\| archive" in text
    assert "4 recordings, 160,066 samples; 2025-01-02T03:04:05Z to 2025-02-03T04:05:06Z" in text


def test_the_figure_that_gates_watch_is_the_one_by_slice() -> None:
    made = manifest()
    metrics = dict(made.metrics) | {"macro_f1/hand=left": 0.9}
    text = card.render(changed(metrics=metrics, main_metric="macro_f1"))
    assert "Macro F1 by slice; the gates watch it" in text
    assert row_of(text, "Macro F1 by slice", "hand=left")[2] == "0.900"
    assert "![Macro F1 of each variant" in text


def test_an_area_under_the_curve_of_two_classes_has_an_interval() -> None:
    made = evidence()
    output = msgspec.structs.replace(made.manifest.output, classes=["on_time", "late"])
    counts = np.array([[700, 80], [100, 120]])
    told = dataclasses.replace(
        made,
        manifest=msgspec.structs.replace(
            made.manifest, output=output, metrics={"roc_auc": 0.8}, main_metric="roc_auc"
        ),
        confusion={"all": counts},
    )
    text = card.render(told)
    low, high = (float(part) for part in row_of(text, "ROC AUC by slice", "all")[5].split(" to "))
    assert 0.025 < 0.8 - low < 0.035
    assert 0.025 < high - 0.8 < 0.035
    assert "Classes of the test rows: on_time 78.0 %, late 22.0 %." in text


def test_pictures_of_the_card_are_those_that_are_drawn() -> None:
    made = evidence()
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", card.render(made))
    assert named == [plot.path for plot in plots.planned(made)] == list(plots.draw(made))


def test_limits_name_slices_and_classes_without_evidence() -> None:
    made = evidence()
    counts = {name: matrix.copy() for name, matrix in made.confusion.items()}
    counts["all"][3] = 0
    counts["all"][:, 5] = 0
    del counts["hand=both"]
    metrics = {k: v for k, v in manifest().metrics.items() if not k.endswith("both")}
    bare = changed(metrics=metrics)
    found = card_limits.find(dataclasses.replace(bare, confusion=counts))
    assert "No test row is from hand=both: nothing is known about it." in found
    assert "No test row is of class IR." in found
    assert "On the test set it never answers TRAP." in found


def test_thin_slices_are_a_limit_and_never_the_worst() -> None:
    text = card.render(evidence())
    assert "Only 4 test rows are from hand=both" in text
    assert row_of(text, "## Variants", "`cpu-x86_64-ort`")[6] == "0.829 (hand=right)"


def test_a_bare_release_renders() -> None:
    made = manifest()
    bare = msgspec.structs.replace(
        made,
        parent=None,
        teacher=None,
        slices={},
        gates=[],
        waivers=[],
        metrics={},
        variants=[made.variants[-1]],
        provenance=msgspec.structs.replace(made.provenance, code_commit=None, code_dirty=None),
    )
    text = card.render(Evidence(manifest=bare, floating={}, fallback={}, confusion={}))
    assert "## Pictures" not in text
    assert "commit **not known**" in text
    assert "No confusion of classes was counted." in text


@given(st.text(max_size=60))
def test_text_of_a_recipe_cannot_break_the_card(text: str) -> None:
    shown = card.plain(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[|<`\[\]*]", shown)
    hostile = changed(description=text)
    plain = card.render(evidence())
    assert len(card.render(hostile).splitlines()) == len(plain.splitlines())


def test_confusion_is_not_changed_by_reading_it() -> None:
    made = evidence()
    before = {name: counts.copy() for name, counts in made.confusion.items()}
    card.render(made)
    plots.draw(made)
    assert all(np.array_equal(before[name], made.confusion[name]) for name in before)
