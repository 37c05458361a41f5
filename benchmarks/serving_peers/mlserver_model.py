"""A custom runtime of MLServer, as its documentation shows it."""

import os

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from same_model import SameModel


class Peer(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.model = SameModel(os.environ["BENCH_BUNDLE"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        found = self.model.answered({"data": tensor.data.root, "shape": tensor.shape})
        rows = len(found["label"])
        shape = [rows, len(found["scores"]) // rows]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="scores", shape=shape, datatype="FP32", data=found["scores"]),
                ResponseOutput(name="label", shape=[rows], datatype="BYTES", data=found["label"]),
            ],
        )
