"""Two bundles side by side: what can be compared is, the rest is said."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from converters import comparing, comparison_view
from converters.comparing import Comparison, Row, compare
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import DataSnapshot, Manifest, VariantRecord
from tests.converters.sample_evidence import manifest

replace = msgspec.structs.replace


def changed(**fields: object) -> Manifest:
    return replace(manifest(), **{"version": "1.4.0", **fields})


def with_variant(place: int, **fields: object) -> Manifest:
    variants = list(manifest().variants)
    variants[place] = replace(variants[place], **fields)
    return changed(variants=variants)


def row(found: Comparison, section: str, name: str) -> Row:
    return next(row for row in found.section(section).rows if row.name == name)


def told(found: Comparison, width: int = 120, *, everything: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, soft_wrap=True, highlight=False)
    comparison_view.show(console, found, everything=everything)
    return file.getvalue()


def test_a_bundle_does_not_differ_from_itself() -> None:
    found = compare(manifest(), manifest())
    assert [row.name for section in found.sections for row in section.differing] == []
    assert all(row.change in (0.0, None) for section in found.sections for row in section.rows)
    assert "!=" not in told(found)
    assert found.section("variants").rows


def test_metrics_and_slices_are_subtracted() -> None:
    metrics = manifest().metrics | {"accuracy": 0.86, "accuracy/hand=left": 0.83}
    found = compare(manifest(), changed(metrics=metrics))
    better = row(found, "metrics", "accuracy")
    assert better.change == pytest.approx(0.018)
    assert (better.better, better.differs) == ("b", True)
    assert row(found, "metrics", "accuracy/hand=left").better == "a"
    assert row(found, "metrics", "macro_f1").better is None
    text = told(found)
    assert "+0.018 better" in text
    assert "-0.024 worse" in text


def test_figures_of_other_test_rows_are_shown_and_not_subtracted() -> None:
    datasets = [
        replace(record, sha256="0" * 64) if record.role == "test" else record
        for record in manifest().datasets
    ]
    found = compare(manifest(), changed(datasets=datasets, metrics={"accuracy": 0.9}))
    shown = row(found, "metrics", "accuracy")
    assert (shown.a, shown.b, shown.change, shown.better) == (0.842, 0.9, None, None)
    assert shown.note == "other test rows"
    assert any("tested on different rows" in note for note in found.notes)
    assert "not compared: other test rows" in told(found)


def test_latency_is_compared_on_one_kind_of_machine_only() -> None:
    same = compare(
        manifest(),
        with_variant(0, latency_us={"1": 8.0}, measured_on="onnxruntime 1.33.0 on x86_64"),
    )
    assert row(same, "variants", "cpu-x86_64-ort: latency").change == pytest.approx(-2.2)
    assert row(same, "variants", "cpu-x86_64-ort: latency").better == "b"
    other = compare(
        manifest(),
        with_variant(0, latency_us={"1": 8.0}, measured_on="onnxruntime 1.32.0 on aarch64"),
    )
    latency = row(other, "variants", "cpu-x86_64-ort: latency")
    assert (latency.change, latency.better) == (None, None)
    assert latency.note == "x86_64 against aarch64"


def test_a_measured_latency_is_not_compared_with_none_or_an_estimate() -> None:
    found = compare(manifest(), with_variant(0, latency_us={}, estimate={"latency_us": 3.0}))
    latency = row(found, "variants", "cpu-x86_64-ort: latency")
    assert (latency.a, latency.b, latency.change) == ("measured", "not measured", None)
    estimate = row(found, "variants", "cpu-x86_64-ort: latency_us, estimated")
    assert (estimate.a, estimate.b, estimate.change) == (None, 3.0, None)


def test_less_is_better_for_a_loss_and_its_slices() -> None:
    losses = {"log_loss": 0.4, "log_loss/hand=left": 0.5}
    less = {name: value - 0.01 for name, value in losses.items()}
    found = compare(changed(metrics=losses), changed(metrics=less))
    assert [row(found, "metrics", name).better for name in losses] == ["b", "b"]


def test_the_data_is_told_apart_by_its_snapshot() -> None:
    kept = DataSnapshot(
        id="ab" * 32,
        name="walks",
        source="an archive",
        schema_sha256="cd" * 32,
        rows={"samples": 9},
    )
    other = replace(kept, id="ef" * 32, rows={"samples": 10})
    found = compare(changed(snapshot=kept), changed(snapshot=other))
    differing = [one.name for one in found.section("provenance").differing]
    assert differing == ["data snapshot", "data rows of samples"]
    assert "abababababab" in told(found)


def test_less_is_better_for_sizes_and_errors_and_estimates() -> None:
    files = [replace(entry, size=entry.size - 100) for entry in manifest().files]
    smaller = compare(manifest(), changed(files=files))
    size = row(smaller, "variants", "mcu-tflm: size")
    assert (size.change, size.better) == (-100.0, "b")
    estimate = {"cycles": 1.0, "inferences_per_second": 1.0}
    faster = compare(manifest(), with_variant(5, numeric_error=0.02, estimate=estimate))
    start = "npu-ethos-u55-128: "
    assert row(faster, "variants", f"{start}numeric error").better == "a"
    assert row(faster, "variants", f"{start}cycles, estimated").better == "b"
    assert row(faster, "variants", f"{start}inferences_per_second, estimated").better == "a"


def test_estimates_of_two_tools_are_not_subtracted() -> None:
    found = compare(manifest(), with_variant(5, estimated_by="vela 6", estimate={"cycles": 9.0}))
    cycles = row(found, "variants", "npu-ethos-u55-128: cycles, estimated")
    assert (cycles.change, cycles.note) == (None, "vela 5.2.0 against vela 6")


def test_variants_that_only_one_has_are_named() -> None:
    found = compare(manifest(), changed(variants=manifest().variants[:3]))
    assert row(found, "variants", "mcu-tflm: built").b == "no such variant"


def test_gates_differ_by_outcome_waiver_and_limit_not_by_value() -> None:
    gates = list(manifest().gates)
    gates[0] = replace(gates[0], value=0.02)
    gates[1] = replace(gates[1], threshold=0.03)
    gates[3] = replace(gates[3], waived=False)
    differing = compare(manifest(), changed(gates=gates[:4])).section("gates").differing
    assert [row.name for row in differing] == [
        "cpu-x86_64-ort metric_drop hand=left",
        "gpu-webgpu-ort misplaced",
        "size_bytes",
    ]
    assert differing[2].b is None


def test_provenance_tells_what_was_changed() -> None:
    made = manifest().provenance
    made = replace(made, seed=8, tools=made.tools | {"torch": "2.14.0"}, code_dirty=False)
    found = compare(manifest(), changed(provenance=made))
    names = [row.name for row in found.section("provenance").differing]
    assert names == ["uncommitted changes", "seed", "tool torch"]
    text = told(found)
    assert "2.14.0" in text
    assert "recipe digest" not in text
    assert "recipe digest" in told(found, everything=True)


def test_another_model_is_compared_as_far_as_that_goes() -> None:
    output = replace(manifest().output, classes=["zero", "one"])
    found = compare(manifest(), changed(model="digits", output=output))
    assert found.notes[:2] == [
        "These are different models: watch-activity and digits.",
        "They answer different classes: their figures are not compared.",
    ]
    assert row(found, "metrics", "accuracy").note == "other classes"
    assert row(found, "variants", "mcu-tflm: size").change == 0.0


def test_notes_tell_of_parents_and_waivers() -> None:
    parent = replace(manifest(), version="1.2.0", waivers=[])
    assert compare(parent, manifest()).notes == [
        "1.3.0 was gated against 1.2.0 as its parent.",
        "watch-activity@1.3.0 has waived gates: metric_drop, misplaced.",
    ]


def test_json_round_trips() -> None:
    found = compare(manifest(), changed(metrics={"accuracy": 0.8}))
    data = msgspec.json.encode(found)
    assert msgspec.json.decode(data, type=Comparison) == found
    assert json.loads(data)["schema_version"] == comparing.COMPARISON_VERSION


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(width: int) -> None:
    found = compare(manifest(), with_variant(0, latency_us={"1": 8.0}, float_layers=["a" * 90]))
    lines = told(found, width).splitlines()
    assert max(len(line) for line in lines if not line.startswith("note:")) <= width


def test_a_hostile_manifest_is_shown_as_text() -> None:
    variant: VariantRecord = replace(
        manifest().variants[0], measured_on="\x1b[2J[red]x", latency_us={"many": 1.0, "": 2.0}
    )
    bad = manifests.parse(manifests.serialize(changed(variants=[variant])))
    text = told(compare(bad, with_variant(0, latency_us={"many": 2.0})), everything=True)
    assert "\x1b" not in text
    assert "?[2J[red]x" in text
