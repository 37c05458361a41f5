import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.serving.release import LoadedRelease
from edge_core import baseline
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.features.over_samples import Mean
from edge_core.stats import histogram
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, TARGET, tiny_bundle


def test_a_release_meets_its_golden_vectors(release: LoadedRelease) -> None:
    golden = release.golden()
    samples = goldens.samples(release.definition, golden.raw)
    features = goldens.features(release.definition, golden.raw)
    np.testing.assert_array_equal(features, golden.features)
    np.testing.assert_allclose(
        release.logits(samples, features),
        golden.expected[release.target],
        atol=release.variant.tolerance,
    )
    assert release.fallback_logits(features).shape == (len(features), len(CLASSES))


def test_an_unknown_target_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=f"no variant for target npu; it has {TARGET}"):
        LoadedRelease.open(tiny_bundle(tmp_path), "npu")


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def _drop_a_feature(folder: Path) -> None:
    definition = definitions.parse((folder / manifests.FEATURES).read_bytes())
    shorter = msgspec.structs.replace(definition, features=definition.features[:-1])
    (folder / manifests.FEATURES).write_bytes(definitions.serialize(shorter))


def _add_a_class_to_the_fallback(folder: Path) -> None:
    simple = baseline.parse((folder / manifests.FALLBACK).read_bytes())
    wider = msgspec.structs.replace(
        simple, bias=[*simple.bias, 0.0], weights=[[*row, 0.0] for row in simple.weights]
    )
    (folder / manifests.FALLBACK).write_bytes(baseline.serialize(wider))


@pytest.mark.parametrize(
    "damage",
    [
        *(
            change(name)
            for change in (_remove, _truncate)
            for name in (
                manifests.MANIFEST,
                manifests.FEATURES,
                manifests.REFERENCE,
                manifests.FALLBACK,
                f"variants/{TARGET}/model.onnx",
            )
        ),
        _drop_a_feature,
        _add_a_class_to_the_fallback,
    ],
)
def test_parts_that_are_damaged_or_do_not_fit_are_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tiny_bundle(tmp_path)
    damage(folder)
    with pytest.raises(InvalidBundle):
        LoadedRelease.open(folder, TARGET)


@pytest.mark.parametrize("damage", [_remove(manifests.GOLDEN), _truncate(manifests.GOLDEN)])
def test_damaged_golden_vectors_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    release = LoadedRelease.open(tiny_bundle(tmp_path), TARGET)
    damage(tmp_path)
    with pytest.raises(InvalidBundle, match="golden"):
        release.golden()


def test_a_model_of_raw_windows_gets_what_features_are_computed_from(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    tiny_bundle(tmp_path)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["samples", "axes"], ["largest"], keepdims=0),
            helper.make_node("ReduceSum", ["largest", "axes"], ["third"], keepdims=1),
            helper.make_node("Concat", ["largest", "third"], ["logits"], axis=1),
        ],
        "windows",
        [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", 8, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "variants" / TARGET / "model.onnx").write_bytes(model.SerializeToString())
    path = tmp_path / manifests.MANIFEST
    manifest = msgspec.structs.replace(manifests.parse(path.read_bytes()), input="samples")
    path.write_bytes(manifests.serialize(manifest))
    release = LoadedRelease.open(tmp_path, TARGET)
    raw = np.full((2, 8, 2), 0.3, np.float32)  # no multiple of the lsb, 2**-10
    raw[1, 3] = (100.0, -100.0)  # beyond the range of 8
    given = np.zeros((2, 4), np.float32)
    near = np.float32(round(0.3 * 1024) / 1024)
    np.testing.assert_array_equal(
        release.logits(raw, given), np.array([[near, near, 2 * near], [8, near, 8 + near]])
    )


def _broken_compression(folder: Path) -> None:
    """A whole archive around a member whose compressed bytes are none."""
    with zipfile.ZipFile(folder / manifests.GOLDEN, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", bytes(100_000))
    data = bytearray((folder / manifests.GOLDEN).read_bytes())
    data[45:55] = b"\xff" * 10
    (folder / manifests.GOLDEN).write_bytes(bytes(data))


def _float64(folder: Path) -> None:
    with np.load(folder / manifests.GOLDEN) as arrays:
        wider = {name: arrays[name].astype(np.float64) for name in arrays.files}
    np.savez(folder / manifests.GOLDEN, **wider)


@pytest.mark.parametrize("damage", [_broken_compression, _float64])
def test_golden_vectors_of_other_kinds_are_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    release = LoadedRelease.open(tiny_bundle(tmp_path), TARGET)
    damage(tmp_path)
    with pytest.raises(InvalidBundle, match="golden"):
        release.golden()


def test_statistics_that_no_message_can_hold_are_refused(tmp_path: Path) -> None:
    many = [Mean(name=f"f{i}", input="ax") for i in range(16)]
    definition = msgspec.structs.replace(DEFINITION, features=many)
    folder = tiny_bundle(tmp_path, definition=definition)
    path = folder / manifests.REFERENCE
    reference = histogram.parse(path.read_bytes())
    inputs, last = reference.channels[:2], reference.channels[-2:]
    bins, fine = 1024, reference.channels[2]
    fine = msgspec.structs.replace(
        fine,
        edges=[i / bins for i in range(bins + 1)],
        counts=[sum(fine.counts), *[0] * (bins + 2)],
    )
    channels = [
        *inputs,
        *(msgspec.structs.replace(fine, name=feature.name) for feature in many),
        *last,
    ]
    path.write_bytes(histogram.serialize(msgspec.structs.replace(reference, channels=channels)))
    with pytest.raises(InvalidBundle, match="too many for one message"):
        LoadedRelease.open(folder, TARGET)
