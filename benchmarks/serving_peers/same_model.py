"""The same model and the same features for every peer: window in, probabilities out.

Peers run in environments of their own; of Serinus they load ``edge_core.features``, which needs
numpy and msgspec only. So each side parses the same body and does the same work.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  # the repository's root has to be on the path first
import onnxruntime  # noqa: E402

from edge_core import outputs  # noqa: E402
from edge_core.features import definition as definitions  # noqa: E402
from edge_core.features.evaluation import Evaluator  # noqa: E402


class SameModel:
    """The variant for ``cpu-x86_64-ort``, on one thread as the agent has it."""

    def __init__(self, bundle: str) -> None:
        folder = Path(bundle)
        definition = definitions.parse((folder / "features.json").read_bytes())
        self.evaluator = Evaluator(definitions.of_windows(definition))
        manifest = json.loads((folder / "manifest.json").read_bytes())
        self.classes: list[str] = manifest["output"]["classes"]
        (path,) = (v["path"] for v in manifest["variants"] if v["runtime"] == "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            folder / path, options, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def scores(self, data: Any, shape: Any) -> np.ndarray[Any, Any]:
        """Probabilities, float32 [batch, classes]."""
        window = np.asarray(data, np.float32).reshape(shape)
        features = self.evaluator.evaluate(self.evaluator.quantise(window))
        return outputs.probabilities(self.session.run(None, {self.name: features})[0])

    def answered(self, tensor: dict[str, Any]) -> dict[str, Any]:
        """The answer to one input of the Open Inference Protocol."""
        scores = self.scores(tensor["data"], tensor["shape"])
        labels = [self.classes[index] for index in scores.argmax(axis=1)]
        return {"scores": scores.ravel().tolist(), "label": labels}
