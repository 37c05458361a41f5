"""The second stage of a build: a snapshot of the data becomes rows."""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from converters import definition_source
from converters.data import dataset, log_rows, snapshot_folder, taking
from converters.data.dataset import LabelledRecording, Rows, Snapshot
from converters.data.snapshot_store import Stored
from converters.recipe import Recipe
from converters.stage import Stage
from edge_core.errors import InvalidConfiguration
from edge_core.features import redaction
from edge_core.features.definition import FeatureDefinition, of_requests, of_windows
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition


@dataclass(frozen=True, kw_only=True)
class ToCut:
    """A recipe and where it lies."""

    folder: Path
    recipe: Recipe
    stored: Stored | None = None
    """The data; none asks the recipe's own code, and keeps nothing."""

    def digest(self) -> str:
        """Of the recipe and the snapshot."""
        data = self.stored.digest() if self.stored else ""
        return hashlib.sha256(f"{data}\0{self.recipe!r}".encode()).hexdigest()


class Cut(Stage[ToCut, Snapshot]):
    """Read the data and compute features. Never stored: it costs less than it would take up."""

    name = "features"

    def requires(self, given: ToCut) -> None:
        """The definition is read first; what is wrong with it is said then."""

    def run(self, given: ToCut) -> Snapshot:
        """Cut recordings into windows, or compute the features of a log's requests."""
        definition = definition_source.load(given.folder, given.recipe.features)
        if problem := redaction.problem(definition, given.recipe.privacy):
            raise InvalidConfiguration(f"{given.folder}: {problem}")
        made = (
            _requests(given, definition) if given.recipe.entry.log else _windows(given, definition)
        )
        data = given.stored.record.lineage() if given.stored else None
        return dataclasses.replace(made, data=data)

    def ensures(self, given: ToCut, made: Snapshot) -> None:
        """No row serves two roles."""
        dataset.check_disjoint(made)


def _requests(given: ToCut, definition: FeatureDefinition) -> Snapshot:
    chosen, requests = given.recipe, of_requests(definition)
    if given.stored is None:
        offered = taking.offered_log(given.folder, chosen)
    else:
        offered = snapshot_folder.read_log(*given.stored, requests, list(chosen.slices))
    return log_rows.cut(requests, chosen.output.classes, chosen.slices, offered)


def _windows(given: ToCut, definition: FeatureDefinition) -> Snapshot:
    chosen, windows = given.recipe, of_windows(definition)
    offered: Iterable[LabelledRecording]
    if given.stored is None:
        offered = taking.offered_recordings(given.folder, chosen)
    else:
        offered = snapshot_folder.read_recordings(*given.stored, windows, list(chosen.slices))
    made = dataset.cut(windows, chosen.output.classes, chosen.slices, offered)
    return _rounded(windows, made) if chosen.input == "samples" else made


def _rounded(definition: WindowDefinition, snapshot: Snapshot) -> Snapshot:
    """Samples as the device gives them to a model of raw windows."""
    evaluator = Evaluator(definition)

    def rounded(rows: Rows) -> Rows:
        return dataclasses.replace(rows, samples=evaluator.rounded(rows.samples))

    return dataclasses.replace(
        snapshot, rows={role: rounded(rows) for role, rows in snapshot.rows.items()}
    )
