"""onnxruntime behind the session port."""

from pathlib import Path

import numpy as np
import onnxruntime

from edge_agent.inference.session import Float32
from edge_core.errors import InvalidBundle, Unavailable

ERRORS_ONLY = 3


class OnnxSession:
    """One onnxruntime session on one thread; the device's other cores belong to others."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # A spinning thread pool would keep a small device's core busy between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        provider = self._session.get_providers()[0]
        self.runtime = f"onnxruntime {onnxruntime.__version__} ({provider})"

    def run(self, features: Float32) -> Float32:
        """See :class:`edge_agent.inference.session.Session`."""
        try:
            logits: Float32 = self._session.run(self._outputs, {self._input: features})[0]
        except Exception as error:  # onnxruntime's own errors share no base class
            raise Unavailable(f"onnxruntime failed: {error}") from error
        return logits.astype(np.float32, copy=False)


def open_model(path: Path) -> OnnxSession:
    """Load an ONNX file; raise :class:`InvalidBundle` where onnxruntime refuses it."""
    try:
        return OnnxSession(path)
    except Exception as error:  # onnxruntime's own errors share no base class
        raise InvalidBundle(f"onnxruntime does not accept {path.name}: {error}") from error
