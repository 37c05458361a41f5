"""Trains a recipe's network and its baseline, or takes both from the cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from converters import fallback, recipe_code
from converters.dataset import Snapshot
from converters.product import Plain
from converters.recipe import Recipe
from converters.source import RecipeSource
from converters.stage import StoredStage
from edge_core import baseline
from edge_core.bundle.manifest import Teacher
from edge_core.errors import InvalidInput
from edge_core.features.evaluation import Evaluator

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ToTrain:
    """A recipe and its rows."""

    folder: Path
    recipe: Recipe
    code_sha256: str
    snapshot: Snapshot

    def digest(self) -> str:
        """Of code, recipe and rows."""
        parts = (self.code_sha256, repr(self.recipe), self.snapshot.digest())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Trained(Plain, frozen=True, kw_only=True):
    """Weights and what stands beside them."""

    weights: bytes
    """The network's state dict as safetensors."""
    fallback: bytes
    """The baseline, as in ``fallback.json``."""
    teacher: Teacher | None = None

    @property
    def baseline(self) -> baseline.LogisticBaseline:
        """The baseline."""
        return baseline.parse(self.fallback)


class Train(StoredStage[ToTrain, Trained]):
    """Train in one thread with deterministic kernels, so that a seed fixes the weights."""

    name = "train"

    def requires(self, given: ToTrain) -> None:
        """Every class needs rows to learn from."""
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

        code = recipe_code.load(given.folder, given.recipe.entry)
        network = _network(given, code)
        rows, recipe = given.snapshot.rows["train"], given.recipe
        code.train(
            network, rows, Evaluator(given.snapshot.definition), recipe.settings, recipe.seed
        )
        network.eval()
        classes = len(given.snapshot.classes)
        simple = fallback.fit(given.snapshot.definition, rows, classes, recipe.fallback)
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        return Trained(weights=safetensors.torch.save(state), fallback=baseline.serialize(simple))

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


def _network(given: ToTrain, code: recipe_code.RecipeCode) -> "torch.nn.Module":
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(given.recipe.seed)
    return code.network(
        given.snapshot.definition, len(given.snapshot.classes), given.recipe.settings
    )
