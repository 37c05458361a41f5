"""The first stage of a build: a recipe's data becomes a snapshot, or a snapshot is named."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters import definition_source, recipe_code
from converters.data import dataset, log_rows, snapshot_folder
from converters.data.dataset import LabelledLog, LabelledRecording
from converters.data.snapshot_record import SnapshotRecord
from converters.data.snapshot_store import Store, Stored
from converters.recipe import Recipe, Setting
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
        settings = Noted(given.recipe.settings)
        if given.recipe.entry.log is not None:
            log = offered_log(given.folder, given.recipe, settings)
            return given.store.add(lambda new: _write_log(new, given, definition, log, settings))
        offered = offered_recordings(given.folder, given.recipe, settings)
        return given.store.add(
            lambda new: _write_recordings(new, given, definition, offered, settings)
        )

    def ensures(self, given: ToTake, made: Stored) -> None:
        """The snapshot is of this recipe's data set, and not what other settings choose of it."""
        kind = "log" if given.recipe.entry.log is not None else "recordings"
        name = given.recipe.data.name or given.recipe.model
        if (made.record.kind, made.record.name) != (kind, name):
            raise InvalidInput(
                f"data snapshot {made.record.id[:16]} is a {made.record.kind} of "
                f"{made.record.name!r}; the recipe's data is a {kind} of {name!r}"
            )
        own = given.recipe.settings
        for setting, taken in (made.record.settings or {}).items():
            if own.get(setting) != taken:
                raise InvalidInput(
                    f"data snapshot {made.record.id[:16]} was taken with {setting} = {taken!r}; "
                    f"release {given.recipe.version} has {own.get(setting)!r}: name a snapshot of "
                    "its own, or leave --snapshot away"
                )


class Noted(Mapping[str, Setting]):
    """A release's settings, and which of them were read."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = settings
        self.read: dict[str, Setting] = {}

    def __getitem__(self, name: str) -> Setting:
        self.read[name] = self._settings[name]
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)


def offered_log(
    folder: Path, chosen: Recipe, settings: Mapping[str, Setting] | None = None
) -> LabelledLog:
    """What the recipe's code offers, checked; ``settings`` are the release's own."""
    offered = recipe_code.log(folder, chosen.entry)(settings or chosen.settings)
    log_rows.check(offered, chosen.output.classes, chosen.slices)
    return offered


def offered_recordings(
    folder: Path, chosen: Recipe, settings: Mapping[str, Setting] | None = None
) -> list[LabelledRecording]:
    """What the recipe's code offers, checked; ``settings`` are the release's own."""
    offered = list(recipe_code.recordings(folder, chosen.entry)(settings or chosen.settings))
    for recording in offered:
        dataset.check(recording, chosen.output.classes, chosen.slices)
    return offered


def _write_log(
    new: Path,
    given: ToTake,
    definition: FeatureDefinition,
    offered: LabelledLog,
    settings: Noted,
) -> SnapshotRecord:
    return snapshot_folder.write_log(
        new,
        of_requests(definition),
        list(given.recipe.slices),
        offered,
        name=given.recipe.data.name or given.recipe.model,
        source=given.recipe.data.source or given.folder.resolve().name,
        settings=settings.read,
    )


def _write_recordings(
    new: Path,
    given: ToTake,
    definition: FeatureDefinition,
    offered: list[LabelledRecording],
    settings: Noted,
) -> SnapshotRecord:
    return snapshot_folder.write_recordings(
        new,
        of_windows(definition),
        list(given.recipe.slices),
        offered,
        name=given.recipe.data.name or given.recipe.model,
        source=given.recipe.data.source or given.folder.resolve().name,
        settings=settings.read,
    )
