"""The first stage of a build: the recipe's recordings become rows."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from converters import dataset, recipe_code
from converters.dataset import Rows, Snapshot
from converters.recipe import Recipe
from converters.stage import Stage
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidConfiguration
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator


@dataclass(frozen=True, kw_only=True)
class ToCut:
    """A recipe and where it lies."""

    folder: Path
    recipe: Recipe

    def digest(self) -> str:
        """Of the recipe; the data itself is read anew by every build."""
        return hashlib.sha256(repr(self.recipe).encode()).hexdigest()


class Cut(Stage[ToCut, Snapshot]):
    """Read the data and compute features. Never stored: data may change under a recipe."""

    name = "data and features"

    def requires(self, given: ToCut) -> None:
        """The feature definition has to be there."""
        if not (given.folder / given.recipe.features).is_file():
            raise InvalidConfiguration(
                f"{given.folder} has no {given.recipe.features}; the recipe names it as 'features'"
            )

    def run(self, given: ToCut) -> Snapshot:
        """Cut recordings into windows."""
        definition = definitions.parse(
            folders.read_limited(
                given.folder / given.recipe.features, definitions.MAX_DEFINITION_BYTES
            )
        )
        offer = recipe_code.recordings(given.folder, given.recipe.entry)
        snapshot = dataset.cut(
            definition,
            given.recipe.output.classes,
            given.recipe.slices,
            offer(given.recipe.settings),
        )
        return _rounded(snapshot) if given.recipe.input == "samples" else snapshot

    def ensures(self, given: ToCut, made: Snapshot) -> None:
        """No row serves two roles."""
        dataset.check_disjoint(made)


def _rounded(snapshot: Snapshot) -> Snapshot:
    """Samples as the device gives them to a model of raw windows."""
    evaluator = Evaluator(snapshot.definition)

    def rounded(rows: Rows) -> Rows:
        return dataclasses.replace(rows, samples=evaluator.rounded(rows.samples))

    return dataclasses.replace(
        snapshot, rows={role: rounded(rows) for role, rows in snapshot.rows.items()}
    )
