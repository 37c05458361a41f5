"""onnxruntime behind the session port."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edge_agent.inference.buckets import bucket_for, run_in_buckets
from edge_agent.inference.session import Float32
from edge_core.errors import InvalidBundle, Unavailable, quoted
from edge_core.stats.projection import EMBEDDING

ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"

log = logging.getLogger(__name__)


class _Bound:
    """Buffers for one batch size, known to onnxruntime beforehand."""

    def __init__(self, session: onnxruntime.InferenceSession, rows: int) -> None:
        source = session.get_inputs()[0]
        self.given: Float32 = np.zeros((rows, *source.shape[1:]), np.float32)
        self.binding: Any = session.io_binding()
        self.binding.bind_cpu_input(source.name, self.given)
        self._answered: list[Float32] = []
        for result in _wanted(session):
            buffer = np.zeros((rows, result.shape[1]), np.float32)
            self.binding.bind_output(
                result.name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data
            )
            self._answered.append(buffer)

    def answer(self, rows: int) -> Float32:
        """What the last run gave for its first rows; the caller's own."""
        if len(self._answered) == 1:
            return self._answered[0][:rows].copy()
        return np.concatenate([buffer[:rows] for buffer in self._answered], axis=1)


def _wanted(session: onnxruntime.InferenceSession) -> list[Any]:
    """The logits and, where the file has one, the embedding."""
    found = session.get_outputs()
    logits = next(result for result in found if result.name != EMBEDDING)
    return [logits, *(result for result in found if result.name == EMBEDDING)]


class OnnxSession:
    """One onnxruntime session on one thread; the device's other cores belong to others."""

    def __init__(self, path: Path, providers: Sequence[str] = ()) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # A spinning thread pool would keep a small device's core busy between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        there = onnxruntime.get_available_providers()
        self.absent = [name for name in providers if name not in there]
        found = [name for name in providers if name in there and name != CPU]
        self._session = self._opened(path, options, found)
        self._shape: tuple[int, ...] = tuple(self._session.get_inputs()[0].shape[1:])
        self._bound: dict[int, _Bound] = {}
        self.placement: dict[str, int] = {}
        for part in self._session.get_provider_graph_assignment_info():
            nodes = self.placement.get(part.ep_name, 0) + len(part.get_nodes())
            self.placement[part.ep_name] = nodes
        places = ", ".join(self.placement) or CPU
        self.runtime = f"onnxruntime {onnxruntime.__version__} ({places})"

    def _opened(
        self, path: Path, options: onnxruntime.SessionOptions, found: list[str]
    ) -> onnxruntime.InferenceSession:
        """A session on these providers and the CPU; on the CPU alone where they fail to start."""
        try:
            return onnxruntime.InferenceSession(path, options, providers=[*found, CPU])
        except Exception as error:  # onnxruntime's own errors share no base class
            if not found:
                raise
            log.warning("%s cannot be used: %s", ", ".join(found), quoted(error))
            self.absent = [*self.absent, *found]
            return onnxruntime.InferenceSession(path, options, providers=[CPU])

    def run(self, given: Float32) -> Float32:
        """See :class:`edge_agent.inference.session.Session`."""
        try:
            return run_in_buckets(given, self._shape, self._run_bucket)
        except Exception as error:  # onnxruntime's own errors share no base class
            raise Unavailable(f"onnxruntime failed: {error}") from error

    def _run_bucket(self, given: Float32) -> Float32:
        rows = len(given)
        size = bucket_for(rows)
        bound = self._bound.get(size)
        if bound is None:
            bound = self._bound[size] = _Bound(self._session, size)
        # Rows beyond the last keep what an earlier batch left there; nobody reads them.
        bound.given[:rows] = given
        self._session.run_with_iobinding(bound.binding)
        return bound.answer(rows)


def open_model(path: Path, providers: Sequence[str] = ()) -> OnnxSession:
    """Load an ONNX file; raise :class:`InvalidBundle` where onnxruntime refuses it."""
    try:
        return OnnxSession(path, providers)
    except Exception as error:  # onnxruntime's own errors share no base class
        raise InvalidBundle(f"onnxruntime does not accept {path.name}: {error}") from error
