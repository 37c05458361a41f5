"""The recipe folder's own Python: loaded as a package, called through its entry points."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from converters.data.dataset import LabelledLog, LabelledRecording, Rows
from converters.metrics import METRICS, Metric
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


class LogOffer(Protocol):
    """Offers a log with labelled requests for every role."""

    def __call__(self, settings: Settings) -> LabelledLog:
        """Raise a ``SerinusError`` where the data is missing or not what it should be."""
        ...


class DefinitionMaker(Protocol):
    """Makes the feature definition, where no file holds it."""

    def __call__(self) -> FeatureDefinition:
        """Depend on nothing outside the recipe: its JSON goes into the bundle."""
        ...


class NetworkFactory(Protocol):
    """Makes an untrained network that answers logits float32 [batch, classes].

    It takes what the recipe's ``input`` says: ``features`` float32 [batch, f], or ``samples``
    float32 [batch, samples, inputs]. A teacher comes from a factory of the same kind.
    """

    def __call__(
        self, definition: FeatureDefinition, classes: int, settings: Settings
    ) -> "torch.nn.Module":
        """Draw initial weights from torch's global generator, which is seeded."""
        ...


class Trainer(Protocol):
    """Trains a network in place, on ``rows.features`` or ``rows.samples``.

    Where the recipe distils, this comes first and has to leave the scaling fitted.
    """

    def __call__(
        self,
        network: "torch.nn.Module",
        rows: Rows,
        evaluator: Evaluator | None,
        settings: Settings,
        seed: int,
    ) -> None:
        """Use only these rows; ``evaluator`` turns altered raw windows into features.

        Features of requests come as they are, without one.
        """
        ...


class Augment(Protocol):
    """Alters rows while a student learns from its teacher."""

    def __call__(
        self, rows: "torch.Tensor", settings: Settings, draw: "torch.Generator"
    ) -> "torch.Tensor":
        """Float32 [batch, ...] -> the same shape; all chance comes from ``draw``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeCode:
    """The functions of one recipe."""

    network: NetworkFactory
    train: Trainer
    teacher_network: NetworkFactory | None = None
    teacher_train: Trainer | None = None
    augment: Augment | None = None


def load(folder: Path, entry: EntryPoints) -> RecipeCode:
    """Import the recipe's modules afresh.

    Raises:
        InvalidConfiguration: a module or function is missing, or fails on import.
    """
    _fresh(folder)
    return RecipeCode(
        network=cast(NetworkFactory, _function(folder, entry.network)),
        train=cast(Trainer, _function(folder, entry.train)),
        teacher_network=cast(NetworkFactory | None, _optional(folder, entry.teacher_network)),
        teacher_train=cast(Trainer | None, _optional(folder, entry.teacher_train)),
        augment=cast(Augment | None, _optional(folder, entry.augment)),
    )


def metrics(folder: Path, names: Iterable[str]) -> dict[str, Metric]:
    """The recipe's metrics, in order; one of its own is called by its function's name.

    Call it after :func:`load`.

    Raises:
        InvalidConfiguration: an own metric is missing, or two have the same name.
    """
    found: dict[str, Metric] = {}
    for name in names:
        shown = name.rpartition(":")[2]
        if shown in found or (shown != name and shown in METRICS):
            raise InvalidConfiguration(f"{folder}: two metrics are called {shown}; rename one")
        found[shown] = cast(Metric, _function(folder, name)) if shown != name else METRICS[name]
    return found


def recordings(folder: Path, entry: EntryPoints) -> Recordings:
    """The data alone, without importing the network's code; raises as :func:`load`."""
    _fresh(folder)
    assert entry.recordings is not None
    return cast(Recordings, _function(folder, entry.recordings))


def log(folder: Path, entry: EntryPoints) -> LogOffer:
    """As :func:`recordings`, for features of requests."""
    _fresh(folder)
    assert entry.log is not None
    return cast(LogOffer, _function(folder, entry.log))


def definition(folder: Path, entry: str) -> DefinitionMaker:
    """As :func:`recordings`, for the feature definition."""
    _fresh(folder)
    return cast(DefinitionMaker, _function(folder, entry))


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


def _optional(folder: Path, entry: str | None) -> Any:
    return None if entry is None else _function(folder, entry)


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
