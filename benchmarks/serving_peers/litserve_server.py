"""LitServe with one worker and one API server."""

import os
import sys
from typing import Any

import litserve
from same_model import SameModel


class Peer(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = SameModel(os.environ["BENCH_BUNDLE"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        tensor: dict[str, Any] = request["inputs"][0]
        return tensor

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        return self.model.answered(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Peer(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
