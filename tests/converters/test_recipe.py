"""What a recipe may say, and what is refused in one line that names the place."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from converters import recipe, recipe_code
from converters.metrics import METRICS
from edge_core.bundle.manifest import Privacy
from edge_core.errors import InvalidConfiguration

BASE = """
model = "tiny"
targets = ["cpu-x86_64-ort"]
seed = 1
METRICS

[entry]
recordings = "code:recordings"
network = "code:network"
train = "code:train"
ENTRY

[output]
classes = ["no", "yes"]
meaning = "answer"

[budget]
latency_us = 1.0
memory_bytes = 1
size_bytes = 1

[fallback]
features = ["f"]
MORE
"""
CODE = """
def recordings(settings): ...
def network(definition, classes, settings): ...
def train(network, rows, evaluator, settings, seed): ...
def teacher_network(definition, classes, settings): ...
def teacher_train(network, rows, evaluator, settings, seed): ...
def augment(rows, settings, draw): ...
def first_class(logits, labels):
    return float((labels == 0).mean())
def accuracy(logits, labels):
    return 0.5
"""
TEACHER = 'teacher_network = "code:teacher_network"\nteacher_train = "code:teacher_train"'


def written(
    folder: Path, *, metrics: str = "", entry: str = "", more: str = "", release: str = ""
) -> Path:
    folder.mkdir(exist_ok=True)
    text = BASE.replace("METRICS", metrics).replace("ENTRY", entry)
    (folder / "recipe.toml").write_text(text.replace("MORE", textwrap.dedent(more)))
    (folder / "code.py").write_text(CODE)
    (folder / "releases").mkdir()
    (folder / "releases" / "1.0.0.toml").write_text(release)
    return folder


def test_a_short_recipe_gets_the_defaults(tmp_path: Path) -> None:
    found = recipe.load(written(tmp_path), None)
    assert found.input == "features"
    assert found.metrics == ["accuracy"]
    assert found.distillation is None
    assert (found.quantisation.scheme, found.quantisation.method) == ("int8 static", "auto")
    assert found.quantisation.qat is None
    assert not found.quantisation.mixed
    assert (found.gates.suspicious_score, found.gates.single_feature) == (0.999, 0.01)


def test_privacy_is_asked_for_by_the_recipe(tmp_path: Path) -> None:
    assert recipe.load(written(tmp_path / "plain"), None).privacy is None
    found = recipe.load(written(tmp_path / "asked", more=PRIVACY), None)
    assert found.privacy == Privacy(epsilon=1.5, redacted=["ax"])
    with pytest.raises(InvalidConfiguration, match=r">= 0.01.*privacy\.epsilon"):
        recipe.load(written(tmp_path / "odd", more=PRIVACY.replace("1.5", "-1.0")), None)


PRIVACY = """
[privacy]
epsilon = 1.5
redacted = ["ax"]
"""


def test_everything_can_be_said(tmp_path: Path) -> None:
    more = """
    [distillation]
    temperature = 4.0
    hard_weight = 0.2
    epochs = 3
    feature_weight = 0.5
    student_layer = "body.0"
    teacher_layer = "body.3"

    [quantisation]
    scheme = "int8 weight-only"
    method = "entropy"
    mixed = true
    qat = { epochs = 4, learning_rate = 1e-4 }

    [gates]
    suspicious_score = 1.01
    single_feature = 0.0
    """
    release = 'input = "samples"\nmetrics = ["macro_f1", "ece", "code:first_class"]'
    found = recipe.load(written(tmp_path, entry=TEACHER, more=more, release=release), "1.0.0")
    assert found.input == "samples"
    assert found.metrics == ["macro_f1", "ece", "code:first_class"]
    assert found.distillation is not None
    assert (found.distillation.teacher, found.distillation.epochs) == ("entry", 3)
    assert found.quantisation.qat == recipe.QatRecipe(epochs=4, learning_rate=1e-4)
    assert found.gates.suspicious_score == 1.01


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"metrics": 'input = "pictures"'}, "pictures"),
        ({"metrics": 'metrics = ["accurracy"]'}, "unknown accurracy; known are accuracy"),
        ({"metrics": 'metrics = ["ece", "accuracy"]'}, "ece falls as models improve"),
        ({"metrics": 'metrics = ["accuracy", "accuracy"]'}, "twice"),
        ({"metrics": "metrics = []"}, "metrics"),
        ({"more": "[distillation]\nepochs = 2"}, "entry.teacher_network"),
        ({"entry": TEACHER, "more": "[distillation]\nepochs = 0"}, "distillation.epochs"),
        (
            {"entry": TEACHER, "more": "[distillation]\nepochs = 2\ntemperature = 0.0"},
            "distillation.temperature",
        ),
        (
            {"entry": TEACHER, "more": "[distillation]\nepochs = 2\nfeature_weight = 1.0"},
            "student_layer",
        ),
        ({"more": '[quantisation]\nmethod = "guess"'}, "guess"),
        ({"more": "[quantisation]\nqat = { epochs = 1, rate = 1.0 }"}, "rate"),
        ({"more": "[gates]\nsuspicious_score = 0.0"}, "suspicious_score"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, parts: dict[str, str], names: str) -> None:
    with pytest.raises(InvalidConfiguration, match=names) as refused:
        recipe.load(written(tmp_path, **parts), None)
    assert "recipe.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_code_that_is_not_named_is_not_there(tmp_path: Path) -> None:
    chosen = recipe.load(written(tmp_path), None)
    code = recipe_code.load(tmp_path, chosen.entry)
    assert (code.teacher_network, code.teacher_train, code.augment) == (None, None, None)


def test_teacher_and_augmentation_are_loaded(tmp_path: Path) -> None:
    chosen = recipe.load(written(tmp_path, entry=TEACHER + '\naugment = "code:augment"'), None)
    code = recipe_code.load(tmp_path, chosen.entry)
    for function in (code.teacher_network, code.teacher_train, code.augment):
        assert callable(function)


def test_metrics_of_the_recipe_stand_beside_built_in_ones(tmp_path: Path) -> None:
    named = 'metrics = ["macro_f1", "code:first_class"]'
    chosen = recipe.load(written(tmp_path, metrics=named), None)
    recipe_code.load(tmp_path, chosen.entry)
    found = recipe_code.metrics(tmp_path, chosen.metrics)
    assert list(found) == ["macro_f1", "first_class"]
    assert found["macro_f1"] is METRICS["macro_f1"]
    labels = np.array([0, 1, 1, 1])
    assert found["first_class"](np.zeros((4, 2), np.float32), labels) == 0.25


@pytest.mark.parametrize(
    ("metric", "names"),
    [("code:accuracy", "two metrics are called accuracy"), ("code:nothing", "no function nothing")],
)
def test_an_own_metric_has_to_be_there_under_a_name_of_its_own(
    tmp_path: Path, metric: str, names: str
) -> None:
    chosen = recipe.load(written(tmp_path, metrics=f'metrics = ["{metric}"]'), None)
    recipe_code.load(tmp_path, chosen.entry)
    with pytest.raises(InvalidConfiguration, match=names):
        recipe_code.metrics(tmp_path, chosen.metrics)
