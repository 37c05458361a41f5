"""The recipes that prove the converter: their data, and what their networks reach in float."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch

from converters import definition_source, fallback, gates, metrics, recipe, recipe_code, training
from converters.data import dataset
from converters.floating import FloatModel
from converters.layers import Scaled
from converters.recipe import Recipe
from converters.recipe_code import RecipeCode
from converters.scoring import Scorer
from converters.tensors import TensorSpec
from edge_core.features.definition import of_windows

FOLDER = Path(__file__).parents[2] / "firmware_bundles"


@dataclass(frozen=True)
class Case:
    """One release of one recipe and its rows."""

    folder: Path
    chosen: Recipe
    code: RecipeCode
    snapshot: dataset.Snapshot

    def metrics(self, network: torch.nn.Module) -> dict[str, float]:
        test = self.snapshot.rows["test"]
        with torch.no_grad():
            logits = network(torch.from_numpy(training.model_rows(self.chosen, test))).numpy()
        scorer = Scorer(
            metrics={"accuracy": metrics.accuracy},
            labels=test.labels,
            slices=gates.slices_of(self.chosen, test),
        )
        return scorer.score(logits)

    def baseline(self) -> float:
        names = self.snapshot.definition.feature_names
        classes = len(self.snapshot.classes)
        simple = fallback.fit(
            self.snapshot.definition, self.snapshot.rows["train"], classes, self.chosen.fallback
        )
        test = self.snapshot.rows["test"]
        return float((simple.logits(test.features, names).argmax(1) == test.labels).mean())


def opened(model: str, release: str) -> Case:
    folder = FOLDER / model
    chosen = recipe.load(folder, release)
    definition = of_windows(definition_source.load(folder, chosen.features))
    recordings = recipe_code.recordings(folder, chosen.entry)(chosen.settings)
    snapshot = dataset.cut(definition, chosen.output.classes, chosen.slices, recordings)
    code = recipe_code.load(folder, chosen.entry)
    dataset.check_disjoint(snapshot)
    return Case(folder, chosen, code, snapshot)


def weights(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


# --- digits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Case:
    return opened("digits", "1.0.0")


def test_digits_come_from_two_sites_in_one_form(digits: Case) -> None:
    rows = digits.snapshot.rows
    assert sum(map(len, rows.values())) == 1797 + 5000
    for found in rows.values():
        assert found.samples.shape[1:] == (8, 8)
        assert set(np.unique(found.samples)) == set(range(17))
        assert set(found.labels) == set(range(10))
        shares = {site: found.mask("site", site).mean() for site in ("uci", "mnist")}
        assert shares["uci"] == pytest.approx(1797 / 6797, abs=0.01)


def test_a_window_of_digits_is_one_image(digits: Case) -> None:
    (image, *_) = recipe_code.recordings(digits.folder, digits.chosen.entry)(digits.chosen.settings)
    assert image.samples.shape == (8, 8)
    test = digits.snapshot.rows["test"]
    assert len(set(test.entities)) == len(test)
    columns = test.samples.mean(axis=1)
    means = [digits.snapshot.definition.feature_names.index(f"c{i}_mean") for i in range(8)]
    assert np.allclose(test.features[:, means], columns)


def test_pooling_keeps_place_and_grey(digits: Case) -> None:
    from firmware_bundles.digits.data import pooled

    image = np.zeros((28, 28), np.float32)
    image[2:5, 2:5] = 255  # the first block
    image[23:26, 2:5] = 127.5  # the last row's first block
    image[:2] = 255  # the margin is cut off
    small = pooled(image.reshape(1, -1))[0]
    assert (small[0, 0], small[7, 0], small.sum()) == (16, 8, 24)


def test_the_digits_network_is_small_and_good_on_both_sites(digits: Case) -> None:
    network = training.train(digits.chosen, digits.code, digits.snapshot).network
    found = digits.metrics(network)
    print("digits", found, "weights", weights(network), "fallback", digits.baseline())
    assert weights(network) <= 20_000
    assert found["accuracy"] >= 0.965
    assert min(found["accuracy/site=uci"], found["accuracy/site=mnist"]) >= 0.955
    assert found["accuracy"] > digits.baseline()
    assert_scaling_can_be_cut(digits, network)


# --- watch_activity -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watch() -> Case:
    return opened("watch_activity", "2.0.0")


@pytest.mark.parametrize(
    ("release", "least"), [("1.0.0", 0.72), ("1.1.0", 0.81), ("1.1.1", 0.81), ("1.2.0", 0.79)]
)
def test_earlier_watch_releases_are_as_good_as_they_were(release: str, least: float) -> None:
    case = opened("watch_activity", release)
    network = training.train(case.chosen, case.code, case.snapshot).network
    assert case.metrics(network)["accuracy"] >= least
    assert_scaling_can_be_cut(case, network)


def assert_scaling_can_be_cut(case: Case, network: torch.nn.Module) -> None:
    rows = training.model_rows(case.chosen, case.snapshot.rows["golden"])
    model = FloatModel(
        module=network,
        inputs=(TensorSpec(name="rows", shape=rows.shape[1:]),),
        outputs=(TensorSpec(name="logits", shape=(len(case.snapshot.classes),)),),
    )
    assert model.scaling is not None
    scaled: npt.NDArray[np.float32] = model.scaling(torch.from_numpy(rows)).numpy()
    assert np.abs(scaled).max() <= model.scaling.limit
    whole = model.run({"rows": rows})["logits"]
    assert np.allclose(model.without_scaling().run({"rows": scaled})["logits"], whole, atol=1e-5)


def test_the_fleet_s_subjects_serve_no_release(watch: Case) -> None:
    for rows in watch.snapshot.rows.values():
        subjects = {int(entity.split()[1]) for entity in rows.entities}
        assert subjects <= {1, 2, 3, 4, 5}


def test_somebody_else_s_movement_keeps_its_form_and_depends_on_the_generator(
    watch: Case,
) -> None:
    samples = torch.from_numpy(watch.snapshot.rows["train"].samples[:16])
    augment = watch.code.augment
    assert augment is not None
    settings = dict(watch.chosen.settings)
    first, again, other = (
        augment(samples, settings, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == samples.shape
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    still = settings | {"turn": 0.0, "mirror": 0.0, "warp": 0.0, "noise": 0.0}
    same = augment(samples, still, torch.Generator().manual_seed(1))
    assert torch.allclose(same, samples, atol=0.02)
    turned = augment(samples, still | {"turn": 0.5}, torch.Generator().manual_seed(1))
    for part in (slice(0, 3), slice(3, 6)):  # a turn keeps lengths
        lengths = torch.linalg.vector_norm(turned[..., part], dim=2)
        assert torch.allclose(
            lengths, torch.linalg.vector_norm(same[..., part], dim=2), rtol=1e-3, atol=1e-3
        )


def test_the_watch_student_fits_a_microcontroller(watch: Case) -> None:
    assert watch.code.teacher_network is not None
    definition, settings = watch.snapshot.definition, watch.chosen.settings
    student = watch.code.network(definition, 7, settings)
    teacher = watch.code.teacher_network(definition, 7, settings)
    assert isinstance(student, Scaled)
    assert weights(student) < 64 * 1024  # one byte each in int8
    assert weights(teacher) > 1.5 * weights(student)


def test_the_watch_student_beats_the_perceptron_and_keeps_near_its_teacher(watch: Case) -> None:
    trained = training.train(watch.chosen, watch.code, watch.snapshot)
    assert trained.teacher is not None
    student, teacher = watch.metrics(trained.network), watch.metrics(trained.teacher)
    print("watch student", student, "teacher", teacher, "fallback", watch.baseline())
    assert student["accuracy"] >= 0.86  # the perceptron's, 1.1.0: 0.825
    assert student["accuracy"] > teacher["accuracy"] - 0.05
    assert student["accuracy"] > watch.baseline()
    assert_scaling_can_be_cut(watch, trained.network)


def test_a_short_distillation_gives_the_same_network_again(watch: Case) -> None:
    assert watch.chosen.distillation is not None
    short = msgspec.structs.replace(
        watch.chosen,
        settings=dict(watch.chosen.settings) | {"teacher_epochs": 4},
        distillation=msgspec.structs.replace(watch.chosen.distillation, epochs=6),
    )
    first, second = (training.train(short, watch.code, watch.snapshot) for _ in range(2))
    assert len(first.history) == 6
    assert first.history == second.history
    assert first.history[-1].soft < first.history[0].soft
    assert watch.metrics(first.network) == watch.metrics(second.network)
    assert watch.metrics(first.network)["accuracy"] > 0.5
    assert not first.network.training
