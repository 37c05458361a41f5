"""LiteRT (and, on 32-bit ARM, tflite-runtime) behind the session port."""

import importlib.metadata
import platform
from pathlib import Path

import numpy as np

from edge_agent.inference.session import Float32
from edge_core.errors import InvalidBundle, Unavailable

if platform.machine() == "armv7l":
    from tflite_runtime.interpreter import Interpreter

    PACKAGE = "tflite-runtime"
else:
    from ai_edge_litert.interpreter import Interpreter

    PACKAGE = "ai-edge-litert"

LARGEST_BUCKET = 64


class LitertSession:
    """One interpreter for each batch size of 1, 2, 4, ..., 64, made when it is first needed.

    Resizing an interpreter plans its memory anew, which costs more than a second interpreter.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._interpreters: dict[int, Interpreter] = {}
        self._bucket(1)
        self.runtime = f"{PACKAGE} {importlib.metadata.version(PACKAGE)} (XNNPACK on CPU)"

    def run(self, features: Float32) -> Float32:
        """See :class:`edge_agent.inference.session.Session`."""
        parts = [
            self._run_bucket(features[start : start + LARGEST_BUCKET])
            for start in range(0, len(features), LARGEST_BUCKET)
        ]
        return np.concatenate(parts)

    def _run_bucket(self, features: Float32) -> Float32:
        rows = len(features)
        size = 1 << (rows - 1).bit_length()
        try:
            interpreter = self._bucket(size)
            padded = np.zeros((size, features.shape[1]), np.float32)
            padded[:rows] = features
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], padded)
            interpreter.invoke()
            logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        except (ValueError, RuntimeError) as error:
            raise Unavailable(f"{PACKAGE} failed: {error}") from error
        return np.asarray(logits[:rows], dtype=np.float32)

    def _bucket(self, size: int) -> Interpreter:
        if size not in self._interpreters:
            interpreter = Interpreter(model_content=self._model, num_threads=1)
            details = interpreter.get_input_details()[0]
            interpreter.resize_tensor_input(details["index"], [size, *details["shape"][1:]])
            interpreter.allocate_tensors()
            self._interpreters[size] = interpreter
        return self._interpreters[size]


def open_model(path: Path) -> LitertSession:
    """Load a TFLite file; raise :class:`InvalidBundle` where the runtime refuses it."""
    try:
        return LitertSession(path.read_bytes())
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidBundle(f"{PACKAGE} does not accept {path.name}: {error}") from error
