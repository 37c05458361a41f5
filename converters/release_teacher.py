"""A finished release as the teacher of a new one: it answers as its variant does."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters import host, incumbent
from converters.data.dataset import Float32, Snapshot
from converters.recipe import Recipe
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions

if TYPE_CHECKING:
    import torch


class ReleaseTeacher:
    """Answers rows of the student's own input; its hidden layers are not to be seen."""

    def __init__(self, folder: Path, recipe: Recipe, snapshot: Snapshot) -> None:
        """Open a bundle as teacher.

        Raises:
            InvalidBundle: its files are not what its manifest says, or it takes other inputs or
                knows other classes than the student.
        """
        manifest = folders.read(folder)
        folders.check(folder, manifest)
        variant = next((v for v in manifest.variants if v.runtime in incumbent.HOST), None)
        self.name = f"{manifest.model} {manifest.version}"
        self.digest = folders.ref(folder).digest
        definition = definitions.parse(
            folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
        )
        if manifest.input != recipe.input or definition != snapshot.definition:
            raise InvalidBundle(
                f"{self.name} takes other inputs than {recipe.model}; it cannot teach"
            )
        if variant is None or set(snapshot.classes) - set(manifest.output.classes):
            raise InvalidBundle(
                f"{self.name} cannot teach: it lacks classes, or nothing here runs it"
            )
        self._order = [manifest.output.classes.index(name) for name in snapshot.classes]
        shape: tuple[int, ...] = (len(definition.feature_names),)
        if manifest.input == "samples":
            shape = definition.raw_shape
        self._input, self._output = str(manifest.input), manifest.output.name
        self._run = host.runner(incumbent.model_file(folder, manifest, variant, shape))

    def logits(self, rows: Float32) -> Float32:
        """Rows as the model takes them, float32 [rows, ...] -> float32 [rows, classes]."""
        found: Float32 = self._run({self._input: rows})[self._output][:, self._order]
        return found

    def __call__(self, rows: "torch.Tensor") -> "torch.Tensor":
        """The same for torch."""
        import torch

        return torch.from_numpy(self.logits(np.ascontiguousarray(rows.numpy())))
