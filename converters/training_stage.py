"""Trains a recipe's network and its baseline, or takes both from the cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from converters import fallback, gates, recipe_code, training
from converters.data.dataset import Snapshot
from converters.product import Plain
from converters.recipe import Recipe
from converters.refusal import WrongUse
from converters.release_teacher import ReleaseTeacher
from converters.scoring import Scorer
from converters.source import RecipeSource, float_model
from converters.stage import StoredStage
from edge_core import baseline
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import FineTuning, Teacher
from edge_core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class ToTrain:
    """A recipe and its rows."""

    folder: Path
    recipe: Recipe
    code_sha256: str
    snapshot: Snapshot
    teacher: Path | None = None
    """A bundle that teaches, where the recipe asks for one."""

    def digest(self) -> str:
        """Of code, recipe, rows and teacher."""
        teacher = folders.ref(self.teacher).digest if self.teacher else ""
        parts = (self.code_sha256, repr(self.recipe), self.snapshot.digest(), teacher)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Trained(Plain, frozen=True, kw_only=True):
    """Weights and what stands beside them."""

    weights: bytes
    """The network's state dict as safetensors."""
    fallback: bytes
    """The baseline, as in ``fallback.json``."""
    teacher: Teacher | None = None
    fine_tuning: FineTuning | None = None

    @property
    def baseline(self) -> baseline.LogisticBaseline:
        """The baseline."""
        return baseline.parse(self.fallback)


class Train(StoredStage[ToTrain, Trained]):
    """Train in one thread with deterministic kernels, so that a seed fixes the weights."""

    name = "train"

    def requires(self, given: ToTrain) -> None:
        """Every class needs rows to learn from, and a release as teacher has to be named."""
        how = given.recipe.distillation
        if how is not None and how.teacher == "release" and given.teacher is None:
            raise WrongUse("the recipe learns from a release: name its bundle with --teacher")
        if given.teacher is not None and (how is None or how.teacher != "release"):
            raise WrongUse("--teacher: the recipe does not say distillation.teacher = 'release'")
        rows = given.snapshot.rows["train"]
        seen = set(rows.labels.tolist())
        absent = [name for place, name in enumerate(given.snapshot.classes) if place not in seen]
        if absent:
            raise InvalidInput(
                f"the training rows hold no {', '.join(absent)}; offer some, or leave the class out"
            )

    def run(self, given: ToTrain) -> Trained:
        """Train network and baseline."""
        import safetensors.torch

        recipe, snapshot = given.recipe, given.snapshot
        code = recipe_code.load(given.folder, recipe.entry)
        release = ReleaseTeacher(given.teacher, recipe, snapshot) if given.teacher else None
        found = training.train(recipe, code, snapshot, release)
        rows, classes = snapshot.rows["train"], len(snapshot.classes)
        simple = fallback.fit(snapshot.definition, rows, classes, recipe.fallback)
        state = {name: value.contiguous() for name, value in found.network.state_dict().items()}
        return Trained(
            weights=safetensors.torch.save(state),
            fallback=baseline.serialize(simple),
            teacher=_teacher(given, found, release),
        )

    def ensures(self, given: ToTrain, made: Trained) -> None:
        """The weights have to fit the network that the recipe makes."""
        source(given, made).load()

    def pack(self, made: Trained) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> Trained:
        """See :class:`StoredStage`."""
        return Trained.unpack(data)


def without_targets(recipe: Recipe) -> Recipe:
    """The recipe as training sees it: which targets are built does not change the weights."""
    return msgspec.structs.replace(recipe, targets=["any"])


def source(given: ToTrain, trained: Trained) -> RecipeSource:
    """The trained model, in a form that travels to another process."""
    return RecipeSource(
        folder=str(given.folder.resolve()),
        recipe=given.recipe,
        code_sha256=given.code_sha256,
        weights=trained.weights,
    )


def _teacher(
    given: ToTrain, found: training.Trained, release: ReleaseTeacher | None
) -> Teacher | None:
    """What the manifest says of the teacher; none where nothing was distilled."""
    how, test = given.recipe.distillation, given.snapshot.rows["test"]
    if how is None:
        return None
    rows = training.model_rows(given.recipe, test)
    if release is not None:
        name, digest, logits = release.name, release.digest, release.logits(rows)
    else:
        assert found.teacher is not None
        plain = msgspec.structs.replace(given.recipe, embedding=None)  # its layers are others
        model = float_model(plain, given.snapshot.definition, found.teacher)
        name = f"teacher of {given.recipe.model} {given.recipe.version}"
        digest, logits = model.digest(), model.run({str(given.recipe.input): rows})["logits"]
    scorer = Scorer(
        metrics=recipe_code.metrics(given.folder, given.recipe.metrics),
        labels=test.labels,
        slices=gates.slices_of(given.recipe, test),
    )
    return Teacher(
        name=name,
        digest=digest,
        temperature=how.temperature,
        hard_weight=how.hard_weight,
        feature_weight=how.feature_weight,
        metrics=scorer.score(logits),
    )
