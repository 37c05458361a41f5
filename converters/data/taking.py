"""The first stage of a build: a recipe's data becomes a snapshot, or a snapshot is named."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from converters import definition_source, recipe_code
from converters.data import dataset, log_rows, snapshot_folder
from converters.data.dataset import LabelledLog, LabelledRecording
from converters.data.snapshot_record import SnapshotRecord
from converters.data.snapshot_store import Store, Stored
from converters.recipe import Recipe
from converters.stage import Stage
from edge_core.errors import InvalidInput
from edge_core.features.definition import FeatureDefinition, of_requests, of_windows


@dataclass(frozen=True, kw_only=True)
class ToTake:
    """A recipe, where it lies, and where snapshots are kept."""

    folder: Path
    recipe: Recipe
    store: Store
    snapshot: str | None = None
    """Id or folder of a snapshot to use; none asks the recipe's own code."""

    def digest(self) -> str:
        """Of the recipe and the snapshot's name."""
        return hashlib.sha256(f"{self.snapshot}\0{self.recipe!r}".encode()).hexdigest()


class TakeData(Stage[ToTake, Stored]):
    """Read the data, keep it. Every later stage reads what was kept, not what was offered."""

    name = "data"

    def requires(self, given: ToTake) -> None:
        """The recipe was checked when it was read."""

    def run(self, given: ToTake) -> Stored:
        """Find the named snapshot, or ask the recipe's code and keep what it offers."""
        if given.snapshot is not None:
            return given.store.find(given.snapshot)
        definition = definition_source.load(given.folder, given.recipe.features)
        if given.recipe.entry.log is not None:
            log = offered_log(given.folder, given.recipe)
            return given.store.add(lambda new: _write_log(new, given, definition, log))
        recordings = offered_recordings(given.folder, given.recipe)
        return given.store.add(lambda new: _write_recordings(new, given, definition, recordings))

    def ensures(self, given: ToTake, made: Stored) -> None:
        """The snapshot is of this recipe's data set."""
        kind = "log" if given.recipe.entry.log is not None else "recordings"
        name = given.recipe.data.name or given.recipe.model
        if (made.record.kind, made.record.name) != (kind, name):
            raise InvalidInput(
                f"data snapshot {made.record.id[:16]} is a {made.record.kind} of "
                f"{made.record.name!r}; the recipe's data is a {kind} of {name!r}"
            )


def offered_log(folder: Path, chosen: Recipe) -> LabelledLog:
    """What the recipe's code offers, checked."""
    offered = recipe_code.log(folder, chosen.entry)(chosen.settings)
    log_rows.check(offered, chosen.output.classes, chosen.slices)
    return offered


def offered_recordings(folder: Path, chosen: Recipe) -> list[LabelledRecording]:
    """What the recipe's code offers, checked."""
    offered = list(recipe_code.recordings(folder, chosen.entry)(chosen.settings))
    for recording in offered:
        dataset.check(recording, chosen.output.classes, chosen.slices)
    return offered


def _write_log(
    new: Path, given: ToTake, definition: FeatureDefinition, offered: LabelledLog
) -> SnapshotRecord:
    return snapshot_folder.write_log(
        new,
        of_requests(definition),
        list(given.recipe.slices),
        offered,
        name=given.recipe.data.name or given.recipe.model,
        source=given.recipe.data.source or given.folder.resolve().name,
    )


def _write_recordings(
    new: Path, given: ToTake, definition: FeatureDefinition, offered: list[LabelledRecording]
) -> SnapshotRecord:
    return snapshot_folder.write_recordings(
        new,
        of_windows(definition),
        list(given.recipe.slices),
        offered,
        name=given.recipe.data.name or given.recipe.model,
        source=given.recipe.data.source or given.folder.resolve().name,
    )
