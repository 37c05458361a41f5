"""The port to a model runtime, and the choice of the one that a variant needs.

An installed package brings a runtime by an entry point of the group ``serinus.runtimes``. Its name
is that of the runtime in a target's profile; it names a function
``open_model(path: Path, providers: Sequence[str]) -> Session``, which raises
:class:`~edge_core.errors.InvalidBundle` for a file that it does not accept, and
:class:`~edge_core.errors.Unavailable` where its hardware is not there.
"""

import importlib
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.inference.placing import Placed, judged
from edge_core.bundle.manifest import VariantRecord
from edge_core.errors import InvalidBundle, SerinusError, Unavailable, quoted

Float32 = npt.NDArray[np.float32]

GROUP = "serinus.runtimes"
MODULES = {
    "onnxruntime": "edge_agent.inference.onnx",
    "litert": "edge_agent.inference.litert",
}

log = logging.getLogger(__name__)


class Session(Protocol):
    """A loaded model. Not thread-safe: one inference thread owns it."""

    runtime: str
    """Name and version of the runtime, and where it really runs."""

    placement: dict[str, int]
    """Operators by the execution provider or delegate that runs them, as far as it tells."""

    absent: list[str]
    """Wanted providers or delegates that are not there, so that others do their work."""

    def run(self, rows: Float32) -> Float32:
        """Float32 [batch, ...] rows, features or raw windows -> logits float32 [batch, classes].

        Where the file has an output named ``embedding`` as well, its coordinates stand behind the
        logits: float32 [batch, classes + coordinates]. The answer is the caller's: a later run
        leaves it as it is.

        Raises:
            Unavailable: the runtime failed on these rows.
        """
        ...


class OpenModel(Protocol):
    """What a runtime's module or plug-in gives."""

    def __call__(self, path: Path, providers: Sequence[str]) -> Session:
        """Load a model file onto the wanted providers, or onto what there is."""
        ...


def open_session(path: Path, variant: VariantRecord) -> Session:
    """Load a model file.

    Raises:
        Unavailable: the runtime is not installed, or its hardware is not there.
        InvalidBundle: the runtime does not accept the file.
    """
    session = load_runtime(variant)(path, wanted(variant))
    complaint = placed(session, variant).complaint
    if complaint:
        log.warning("target %s: %s", variant.target, complaint)
    return session


def wanted(variant: VariantRecord) -> Sequence[str]:
    """Providers or delegates that the target asks for."""
    return () if isinstance(variant.providers, msgspec.UnsetType) else variant.providers


def placed(session: Session, variant: VariantRecord) -> Placed:
    """Where the session's operators run, beside what its target asks for."""
    return judged(session.placement, wanted(variant), session.absent)


def load_runtime(variant: VariantRecord) -> OpenModel:
    """Import the runtime that a variant needs; only now, since imports cost start-up time.

    Raises:
        Unavailable: the runtime is not installed.
    """
    name = MODULES.get(variant.runtime)
    if name is None:
        return _plugged_in(variant)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(
            f"target {variant.target} needs the runtime {variant.runtime}, which is not "
            f"installed ({error}); install serinus[agent]"
        ) from error
    return cast(OpenModel, module.open_model)


def _plugged_in(variant: VariantRecord) -> OpenModel:
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    point = points.get(variant.runtime)
    if point is None:
        raise Unavailable(
            f"target {variant.target} runs by {variant.runtime}, which this agent cannot serve; it "
            f"serves {', '.join([*MODULES, *sorted(points)])}: install the package that brings "
            f"this runtime ({GROUP}), or set another target in the agent's settings"
        )
    package = point.dist.name if point.dist else "?"
    try:
        open_model = point.load()
    except Exception as error:  # whatever a foreign module does wrong
        raise Unavailable(
            f"the runtime {variant.runtime} of the installed package {package} cannot be imported "
            f"from {point.value}: {quoted(error)}"
        ) from error

    def guarded(path: Path, providers: Sequence[str]) -> Session:
        try:
            return _Guarded(variant.runtime, open_model(path, providers))
        except SerinusError:
            raise
        except Exception as error:  # a plug-in's own errors
            raise InvalidBundle(
                f"the runtime {variant.runtime} of {package} does not accept {path.name}: "
                f"{quoted(error)}"
            ) from error

    return guarded


class _Guarded:
    """A plug-in's session whose own errors stay behind the port."""

    def __init__(self, name: str, session: Session) -> None:
        self._name = name
        self._session = session
        self.runtime = str(session.runtime)
        self.placement = {str(place): int(n) for place, n in session.placement.items()}
        self.absent = [str(provider) for provider in session.absent]

    def run(self, rows: Float32) -> Float32:
        """See :class:`Session`."""
        try:
            return self._session.run(rows)
        except Unavailable:
            raise
        except Exception as error:  # a plug-in's own errors
            raise Unavailable(f"{self._name} failed: {quoted(error)}") from error
