"""Contested predictions are explained by the release that gave them."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from converters.appeals.explaining import explain
from edge_core import baseline as baselines
from edge_core import occlusion, outputs
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import FALLBACK, REFERENCE, Privacy
from edge_core.errors import InvalidInput
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.messages.telemetry import Sample
from edge_core.stats import histogram
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, TARGET, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import define, story, tiny_requests

FEATURES = [feature.name for feature in DEFINITION.features]
MODEL = f"variants/{TARGET}/model.onnx"


def logits(bundle: Path, features: Any) -> Any:
    return onnxruntime.InferenceSession((bundle / MODEL).read_bytes()).run(
        None, {"features": features}
    )[0]


def medians(bundle: Path, names: list[str]) -> Any:
    reference = histogram.parse((bundle / REFERENCE).read_bytes())
    return occlusion.medians(reference.channels, names)


def sample_of(bundle: Path, window: Any, **changes: Any) -> Sample:
    evaluator = Evaluator(DEFINITION)
    features = evaluator.evaluate(evaluator.quantise(window[None]))
    plain = Sample(
        device="d1", prediction_id="p-1", at_ms=1, release=folders.ref(bundle), target=TARGET,
        arm="incumbent", definition=definitions.digest(DEFINITION),
        window=window.astype("<f4").tobytes(), features=features.astype("<f4").tobytes(),
        scores=outputs.probabilities(logits(bundle, features)).astype("<f4").tobytes(),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("explained") / "bundle")


@pytest.fixture(scope="module")
def tilted() -> Any:
    samples, labels = tiny_rows(9, seed=3)
    return samples[labels == CLASSES.index("tilt")][0]


def test_an_input_contributes_what_the_answer_loses_without_it(bundle: Path, tilted: Any) -> None:
    found = explain(bundle, sample_of(bundle, tilted), "still")
    evaluator = Evaluator(DEFINITION)

    def tilt(window: Any) -> float:
        features = evaluator.evaluate(evaluator.quantise(window[None]))
        return float(outputs.probabilities(logits(bundle, features))[0, CLASSES.index("tilt")])

    for place, name in enumerate(DEFINITION.input_names):
        without = tilted.copy()
        without[:, place] = medians(bundle, [name])[0]
        expected = tilt(tilted) - tilt(without)
        assert found.contributions[name] == pytest.approx(expected, abs=1e-6)
    assert found.contributions["ay"] > 0.5 > abs(found.contributions["ax"])
    assert found.method == f"occlusion by medians, inputs, {TARGET}"
    assert found.note.startswith("answered tilt (")
    assert "computed again: tilt (" in found.note
    assert "still, which is claimed, has " in found.note


def test_redacted_inputs_are_explained_by_the_features_that_are_left(
    tmp_path: Path, tilted: Any
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", privacy=Privacy(redacted=["ax"]))
    whole = sample_of(bundle, tilted)
    window = tilted.copy()
    window[:, 0] = np.nan
    features = np.frombuffer(whole.features, "<f4").copy()
    features[:2] = np.nan
    sent = msgspec.structs.replace(whole, window=window.tobytes(), features=features.tobytes())
    found = explain(bundle, sent, None)
    assert sorted(found.contributions) == ["ay_mean", "ay_std"]
    assert found.contributions["ay_mean"] > 0.5
    assert "redacted: ax" in found.note


def test_the_fallback_explains_what_the_fallback_answered(bundle: Path, tilted: Any) -> None:
    features = np.frombuffer(sample_of(bundle, tilted).features, "<f4")[None]
    baseline = baselines.parse((bundle / FALLBACK).read_bytes())
    scores = outputs.probabilities(baseline.logits(features, FEATURES))
    answered = int(scores.argmax())
    sent = sample_of(bundle, tilted, arm="fallback", scores=scores.astype("<f4").tobytes())
    found = explain(bundle, sent, None)
    assert found.method.endswith("features, the fallback's")
    without = features.copy()
    without[0, 2] = medians(bundle, ["ay_mean"])[0]
    lost = scores - outputs.probabilities(baseline.logits(without, FEATURES))
    assert found.contributions["ay_mean"] == pytest.approx(float(lost[0, answered]), abs=1e-6)


def test_an_answer_that_the_release_does_not_give_is_named(bundle: Path, tilted: Any) -> None:
    scores = np.array([0.9, 0.05, 0.05], "<f4")
    found = explain(bundle, sample_of(bundle, tilted, scores=scores.tobytes()), None)
    assert "the device answered otherwise than its release does here" in found.note


def test_another_variant_answers_for_hardware_that_is_not_here(bundle: Path, tilted: Any) -> None:
    found = explain(bundle, sample_of(bundle, tilted, target="npu-ethos-u55-128"), None)
    assert found.method.endswith(TARGET)
    assert found.contributions


def test_requests_are_explained_by_their_features(tmp_path: Path) -> None:
    bundle = tiny_requests(tmp_path / "requests")
    definition = define()
    told = story(requests=20)
    features = RequestEvaluator(definition).replay({"parcels": told.events}, told.request)[-1:]
    scores = outputs.probabilities(logits(bundle, features))
    sent = Sample(
        device="d1", prediction_id="p-1", at_ms=1, release=folders.ref(bundle), target=TARGET,
        arm="incumbent", definition=definitions.digest(definition),
        features=features.astype("<f4").tobytes(), scores=scores.astype("<f4").tobytes(),
    )  # fmt: skip
    found = explain(bundle, sent, None)
    assert sorted(found.contributions) == sorted(definition.feature_names)
    without = features.copy()
    without[0, 0] = medians(bundle, definition.feature_names[:1])[0]
    lost = scores - outputs.probabilities(logits(bundle, without))
    first = found.contributions[definition.feature_names[0]]
    assert first == pytest.approx(float(lost[0, scores.argmax()]), abs=1e-6)


@pytest.mark.parametrize("part", ["window", "features", "scores"])
def test_a_sample_of_another_length_is_refused(bundle: Path, tilted: Any, part: str) -> None:
    arm = "fallback" if part == "features" else "incumbent"
    whole = sample_of(bundle, tilted, arm=arm)
    sent = msgspec.structs.replace(whole, **{part: b"1234"})
    with pytest.raises(InvalidInput, match=f"its {part} have 4 bytes"):
        explain(bundle, sent, None)


def test_a_sample_of_another_release_is_refused(bundle: Path, tmp_path: Path, tilted: Any) -> None:
    other = tiny_bundle(tmp_path / "other", version="1.1.0")
    with pytest.raises(InvalidInput, match=r"of tiny-motion@1\.1\.0, not of tiny-motion@1\.0\.0"):
        explain(bundle, sample_of(other, tilted), None)
