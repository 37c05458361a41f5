"""The first stage of a build: the recipe's recordings become rows."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from converters import dataset, definition_source, log_rows, recipe_code
from converters.dataset import Rows, Snapshot
from converters.recipe import Recipe
from converters.stage import Stage
from edge_core.features.definition import of_requests, of_windows
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition


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
        """The definition is read first; what is wrong with it is said then."""

    def run(self, given: ToCut) -> Snapshot:
        """Cut recordings into windows."""
        definition = definition_source.load(given.folder, given.recipe.features)
        chosen = given.recipe
        classes, slices = chosen.output.classes, chosen.slices
        if chosen.entry.log is not None:
            offered = recipe_code.log(given.folder, chosen.entry)(chosen.settings)
            return log_rows.cut(of_requests(definition), classes, slices, offered)
        recordings = recipe_code.recordings(given.folder, chosen.entry)(chosen.settings)
        windows = of_windows(definition)
        snapshot = dataset.cut(windows, classes, slices, recordings)
        return _rounded(windows, snapshot) if chosen.input == "samples" else snapshot

    def ensures(self, given: ToCut, made: Snapshot) -> None:
        """No row serves two roles."""
        dataset.check_disjoint(made)


def _rounded(definition: WindowDefinition, snapshot: Snapshot) -> Snapshot:
    """Samples as the device gives them to a model of raw windows."""
    evaluator = Evaluator(definition)

    def rounded(rows: Rows) -> Rows:
        return dataclasses.replace(rows, samples=evaluator.rounded(rows.samples))

    return dataclasses.replace(
        snapshot, rows={role: rounded(rows) for role, rows in snapshot.rows.items()}
    )
