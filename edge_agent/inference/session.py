"""The port to a model runtime, and the choice of the one that a variant needs."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_core.bundle.manifest import VariantRecord
from edge_core.errors import Unavailable

Float32 = npt.NDArray[np.float32]

MODULES = {
    "onnxruntime": "edge_agent.inference.onnx",
    "litert": "edge_agent.inference.litert",
}


class Session(Protocol):
    """A loaded model. Not thread-safe: one inference thread owns it."""

    runtime: str
    """Name and version of the runtime, and where it really runs."""

    placement: dict[str, int]
    """Operators by where they run, as far as the runtime tells."""

    def run(self, rows: Float32) -> Float32:
        """Float32 [batch, ...] rows, features or raw windows -> logits float32 [batch, classes].

        Raises:
            Unavailable: the runtime failed on these rows.
        """
        ...


def load_runtime(variant: VariantRecord) -> ModuleType:
    """Import the runtime that a variant needs; only now, since imports cost start-up time.

    Raises:
        Unavailable: the runtime is not installed.
    """
    try:
        name = MODULES[variant.runtime]
    except KeyError:
        raise Unavailable(
            f"target {variant.target} runs by {variant.runtime}, which this agent cannot serve; it "
            f"serves {', '.join(MODULES)}: set another target in the agent's settings"
        ) from None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(
            f"target {variant.target} needs the runtime {variant.runtime}, which is not "
            f"installed ({error}); install serinus[agent]"
        ) from error


def open_session(path: Path, variant: VariantRecord) -> Session:
    """Load a model file.

    Raises:
        Unavailable: the runtime is not installed.
        InvalidBundle: the runtime does not accept the file.
    """
    session: Session = load_runtime(variant).open_model(path)
    return session
