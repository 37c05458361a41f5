"""LiteRT (and, on 32-bit ARM, tflite-runtime) behind the session port."""

import ctypes
import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.inference.buckets import bucket_for, run_in_buckets
from edge_agent.inference.session import Float32
from edge_core.errors import InvalidBundle, Unavailable, quoted
from edge_core.stats.projection import EMBEDDING

if platform.machine() == "armv7l":
    from tflite_runtime.interpreter import Interpreter, load_delegate

    PACKAGE = "tflite-runtime"
else:
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    PACKAGE = "ai-edge-litert"

XNNPACK = "XNNPACK"
"""The delegate for CPUs that the runtime applies by itself."""
KERNELS = "built-in kernels"
"""The runtime's own operators, each on its own."""
DELEGATE = "DELEGATE"

log = logging.getLogger(__name__)


class _Planned:
    """One interpreter whose memory is laid out for one batch size."""

    def __init__(self, model: bytes, rows: int, delegates: Sequence[Any] = ()) -> None:
        interpreter = Interpreter(
            model_content=model, num_threads=1, experimental_delegates=list(delegates) or None
        )
        details = interpreter.get_input_details()[0]
        interpreter.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
        interpreter.allocate_tensors()
        self.interpreter = interpreter
        self.source: int = details["index"]
        results = _wanted(interpreter)
        self.results: list[int] = [result["index"] for result in results]
        for end in (details, *results):
            if end["dtype"] != np.float32:
                kind = np.dtype(end["dtype"]).name
                raise ValueError(
                    f"{end['name']} is {kind}; a bundle's models take and give float32"
                )
        self.given: Float32 = np.zeros((rows, *details["shape"][1:]), np.float32)


def _wanted(interpreter: Interpreter) -> list[dict[str, Any]]:
    """Details of the logits and, where the file has one, of the embedding, by the signature."""
    found: list[dict[str, Any]] = interpreter.get_output_details()
    if len(found) == 1 or not interpreter.get_signature_list():
        return found[:1]
    named = interpreter.get_signature_runner().get_output_details()
    embedding = named.pop(EMBEDDING, None)
    logits = min(named.values(), key=lambda details: int(details["index"]))
    return [logits] if embedding is None else [logits, embedding]


class LitertSession:
    """One interpreter for each batch size of 1, 2, 4, ..., 64, made when it is first needed.

    A file that cannot be resized answers row by row. Resizing an interpreter plans its memory
    anew, which costs more than a second one.
    """

    def __init__(self, model: bytes, providers: Sequence[str] = ()) -> None:
        self._model = model
        self.absent: list[str] = []
        self._delegates = self._loaded([name for name in providers if name != XNNPACK])
        one = self._plan(1)
        self._planned = {1: one}
        self._resizable = self._takes_more()
        loaded = [name for name in providers if name != XNNPACK and name not in self.absent]
        # The runtime does not tell its delegates apart; XNNPACK takes what the others leave.
        place = "+".join(loaded) or XNNPACK
        self.placement = _placement(one.interpreter, place)
        where = place if loaded else f"{XNNPACK} on CPU"
        self.runtime = f"{PACKAGE} {importlib.metadata.version(PACKAGE)} ({where})"

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
            planned = self._planned[size] = self._plan(size)
        # Rows beyond the last keep what an earlier batch left there; nobody reads them.
        planned.given[:rows] = given
        planned.interpreter.set_tensor(planned.source, planned.given)
        planned.interpreter.invoke()
        found = [planned.interpreter.get_tensor(result)[:rows] for result in planned.results]
        return np.asarray(found[0] if len(found) == 1 else np.concatenate(found, axis=1))

    def _plan(self, rows: int) -> _Planned:
        return _Planned(self._model, rows, self._delegates)

    def _takes_more(self) -> bool:
        """Whether the file takes more than one row; some hold a batch of one in a constant."""
        try:
            self._plan(2)
        except RuntimeError:
            return False
        return True

    def _loaded(self, libraries: Sequence[str]) -> list[Any]:
        """Delegates of these libraries; those that cannot be loaded are absent."""
        found = []
        for library in libraries:
            try:
                found.append(_delegate(library))
            except (OSError, ValueError) as error:
                log.warning("the delegate %s cannot be used: %s", library, quoted(error))
                self.absent.append(library)
        return found


def _delegate(library: str) -> Any:
    """Load a delegate; looked for first, since a failed one of the runtime's complains at its end.

    Raises:
        OSError: there is no such library.
        ValueError: it does not start.
    """
    found = ctypes.CDLL(library)
    for symbol in ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"):
        if not hasattr(found, symbol):
            raise ValueError(f"{library} is no delegate: it has no {symbol}")
    return load_delegate(library)


def _placement(interpreter: Interpreter, place: str) -> dict[str, int]:
    """Operators of the file by whether a delegate runs them.

    A delegate's node stands beside those that it replaced. What is really run is what the outputs
    need, where a delegate gives a tensor by the delegate.
    """
    operators = interpreter._get_ops_details()
    made_by: dict[int, int] = {}
    for number, operator in enumerate(operators):
        for tensor in operator["outputs"]:
            if operator["op_name"] == DELEGATE or tensor not in made_by:
                made_by[tensor] = number
    needed = [detail["index"] for detail in interpreter.get_output_details()]
    run: set[int] = set()
    while needed:
        number = made_by.get(int(needed.pop()), -1)
        if number >= 0 and number not in run:
            run.add(number)
            needed.extend(tensor for tensor in operators[number]["inputs"] if tensor >= 0)
    kernels = sum(operators[number]["op_name"] != DELEGATE for number in run)
    total = sum(operator["op_name"] != DELEGATE for operator in operators)
    found = {place: total - kernels, KERNELS: kernels}
    return {name: count for name, count in found.items() if count}


def open_model(path: Path, providers: Sequence[str] = ()) -> LitertSession:
    """Load a TFLite file; raise :class:`InvalidBundle` where the runtime refuses it."""
    try:
        return LitertSession(path.read_bytes(), providers)
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidBundle(f"{PACKAGE} does not accept {path.name}: {error}") from error
