"""A BentoML service with one worker; its API is async, so that no thread pool stands between."""

import os
from typing import Any

import bentoml
from same_model import SameModel


@bentoml.service(workers=1)
class Peer:
    def __init__(self) -> None:
        self.model = SameModel(os.environ["BENCH_BUNDLE"])

    @bentoml.api(route="/predict")
    async def predict(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self.model.answered(inputs[0])
