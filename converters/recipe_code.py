"""The recipe folder's own Python: loaded as a package, called through three entry points."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from converters.dataset import LabelledRecording, Rows
from converters.recipe import EntryPoints, Setting
from edge_core.errors import InvalidConfiguration
from edge_core.features.definition import FeatureDefinition
from edge_core.features.evaluation import Evaluator

if TYPE_CHECKING:
    import torch

Settings = Mapping[str, Setting]
PACKAGE = "serinus_recipe"
"""Name of the package: it ends up in layer names, so it must not depend on the folder."""


class Recordings(Protocol):
    """Offers labelled recordings for every role."""

    def __call__(self, settings: Settings) -> Iterable[LabelledRecording]:
        """Raise a ``SerinusError`` where the data is missing or not what it should be."""
        ...


class NetworkFactory(Protocol):
    """Makes an untrained network: ``features`` float32 [batch, f] -> logits [batch, classes]."""

    def __call__(
        self, definition: FeatureDefinition, classes: int, settings: Settings
    ) -> "torch.nn.Module":
        """Draw initial weights from torch's global generator, which is seeded."""
        ...


class Trainer(Protocol):
    """Trains a network in place."""

    def __call__(
        self,
        network: "torch.nn.Module",
        rows: Rows,
        evaluator: Evaluator,
        settings: Settings,
        seed: int,
    ) -> None:
        """Use only these rows; ``evaluator`` turns altered raw windows into features."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeCode:
    """The three functions of one recipe."""

    recordings: Recordings
    network: NetworkFactory
    train: Trainer


def load(folder: Path, entry: EntryPoints) -> RecipeCode:
    """Import the recipe's modules afresh.

    Raises:
        InvalidConfiguration: a module or function is missing, or fails on import.
    """
    _fresh(folder)
    return RecipeCode(
        recordings=cast(Recordings, _function(folder, entry.recordings)),
        network=cast(NetworkFactory, _function(folder, entry.network)),
        train=cast(Trainer, _function(folder, entry.train)),
    )


def recordings(folder: Path, entry: EntryPoints) -> Recordings:
    """The data alone, without importing the network's code; raises as :func:`load`."""
    _fresh(folder)
    return cast(Recordings, _function(folder, entry.recordings))


def _fresh(folder: Path) -> None:
    """Forget what an earlier recipe left, and make the folder a package."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder.resolve())]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)


def digest(folder: Path, release_file: str) -> str:
    """Sha256 over the recipe's files, other releases' settings left out."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        other = name.startswith("releases/") and name != release_file
        if path.is_file() and not other and "__pycache__" not in name:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{name}\0{content}\n".encode())
    return found.hexdigest()


def _function(folder: Path, entry: str) -> Any:
    module, _, name = entry.partition(":")
    try:
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except ModuleNotFoundError as error:
        raise InvalidConfiguration(
            f"{folder}: {entry} cannot be imported: {error}; "
            "install what it needs with pip install 'serinus[convert]'"
        ) from error
    except AttributeError as error:
        raise InvalidConfiguration(f"{folder}: {module}.py has no function {name}") from error
    except (SyntaxError, ImportError) as error:
        raise InvalidConfiguration(f"{folder}: {entry} cannot be imported: {error}") from error
