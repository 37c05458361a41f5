"""LiteRT (and, on 32-bit ARM, tflite-runtime) behind the session port."""

import importlib.metadata
import platform
from pathlib import Path

import numpy as np

from edge_agent.inference.buckets import bucket_for, run_in_buckets
from edge_agent.inference.session import Float32
from edge_core.errors import InvalidBundle, Unavailable

if platform.machine() == "armv7l":
    from tflite_runtime.interpreter import Interpreter

    PACKAGE = "tflite-runtime"
else:
    from ai_edge_litert.interpreter import Interpreter

    PACKAGE = "ai-edge-litert"


class _Planned:
    """One interpreter whose memory is laid out for one batch size."""

    def __init__(self, model: bytes, rows: int) -> None:
        interpreter = Interpreter(model_content=model, num_threads=1)
        details = interpreter.get_input_details()[0]
        interpreter.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
        interpreter.allocate_tensors()
        self.interpreter = interpreter
        self.source: int = details["index"]
        self.result: int = interpreter.get_output_details()[0]["index"]
        for end in (details, interpreter.get_output_details()[0]):
            if end["dtype"] != np.float32:
                kind = np.dtype(end["dtype"]).name
                raise ValueError(
                    f"{end['name']} is {kind}; a bundle's models take and give float32"
                )
        self.given: Float32 = np.zeros((rows, *details["shape"][1:]), np.float32)


class LitertSession:
    """One interpreter for each batch size of 1, 2, 4, ..., 64, made when it is first needed.

    A file that cannot be resized answers row by row. Resizing an interpreter plans its memory
    anew, which costs more than a second one.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        one = _Planned(model, 1)
        self._planned = {1: one}
        self.runtime = f"{PACKAGE} {importlib.metadata.version(PACKAGE)} (XNNPACK on CPU)"
        names = [entry["op_name"] for entry in one.interpreter._get_ops_details()]
        self._resizable = _resizable(model)
        delegated = names.count("DELEGATE")
        self.placement = {"operators": len(names) - delegated, "XNNPACK partitions": delegated}

    def run(self, given: Float32) -> Float32:
        """See :class:`edge_agent.inference.session.Session`."""
        try:
            return run_in_buckets(given, self._planned[1].given.shape[1:], self._run_bucket)
        except (ValueError, RuntimeError) as error:
            raise Unavailable(f"{PACKAGE} failed: {error}") from error

    def _run_bucket(self, given: Float32) -> Float32:
        rows = len(given) if self._resizable else 1
        if len(given) > rows:
            return np.concatenate([self._run_bucket(row[None]) for row in given])
        size = bucket_for(rows)
        planned = self._planned.get(size)
        if planned is None:
            planned = self._planned[size] = _Planned(self._model, size)
        # Rows beyond the last keep what an earlier batch left there; nobody reads them.
        planned.given[:rows] = given
        planned.interpreter.set_tensor(planned.source, planned.given)
        planned.interpreter.invoke()
        logits = planned.interpreter.get_tensor(planned.result)
        return np.asarray(logits[:rows], dtype=np.float32)


def _resizable(model: bytes) -> bool:
    """Whether the file takes more than one row; some hold a batch of one in a constant."""
    try:
        _Planned(model, 2)
    except RuntimeError:
        return False
    return True


def open_model(path: Path) -> LitertSession:
    """Load a TFLite file; raise :class:`InvalidBundle` where the runtime refuses it."""
    try:
        return LitertSession(path.read_bytes())
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidBundle(f"{PACKAGE} does not accept {path.name}: {error}") from error
