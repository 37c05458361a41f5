"""The load of ``benchmarks/serving.py`` counts what is no prediction: here against a real agent."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent.serving import frames
from tests.simulators.processes import Process, command, free_port
from tests.simulators.tiny_bundle import tiny_bundle, tiny_rows

LOAD = Path(__file__).parents[2] / "benchmarks" / "serving_peers" / "load.py"


class Agent(NamedTuple):
    socket: Path
    port: int


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("load")
    found = Agent(folder / "agent.sock", free_port())
    arguments = ["serve", str(tiny_bundle(folder / "bundle")), "--socket", str(found.socket)]
    arguments += ["--rest-port", str(found.port)]
    with Process([*command("serinus-agent"), *arguments], folder / "agent.log") as process:
        process.wait_for_text("serving tiny-motion@1.0.0", seconds=20)
        yield found


def load(tmp_path: Path, requests: list[bytes], kind: str, place: object, *more: str) -> Any:
    file = tmp_path / "requests"
    file.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in requests))
    arguments = [sys.executable, "-I", str(LOAD), kind, str(place), str(file), *more]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def frame(rows: int, samples: int = 8) -> bytes:
    windows = tiny_rows(rows)[0][:, :samples]
    shape = (rows, samples, 2)
    return frames.encode(frames.Predict(id=1, shape=shape, samples=windows.tobytes()))


@pytest.mark.parametrize(("connections", "in_flight", "rows"), [(8, 1, 1), (2, 16, 1), (2, 1, 64)])
def test_predictions_are_counted(
    tmp_path: Path, agent: Agent, connections: int, in_flight: int, rows: int
) -> None:
    more = [str(connections), str(in_flight), "0.3"]
    found = load(tmp_path, [frame(rows)], "socket", agent.socket, *more)
    assert found["answers"] > connections * in_flight
    assert found["wrong"] == 0
    assert 0 < found["p50_us"] <= found["p99_us"]


def test_refusals_are_wrong(tmp_path: Path, agent: Agent) -> None:
    found = load(tmp_path, [frame(1, samples=7)], "socket", agent.socket, "2", "4", "0.3")
    assert found["wrong"] == found["answers"] > 0


@pytest.mark.parametrize(("model", "right"), [("tiny-motion", True), ("nothing", False)])
def test_http_answers_other_than_200_are_wrong(
    tmp_path: Path, agent: Agent, model: str, right: bool
) -> None:
    tensor = {"name": "samples", "datatype": "FP32", "shape": [1, 8, 2]}
    body = json.dumps({"inputs": [{**tensor, "data": tiny_rows(1)[0].ravel().tolist()}]}).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    found = load(tmp_path, [head.encode() + body], "http", agent.port, "2", "0.3")
    assert found["answers"] > 0
    assert found["wrong"] == (0 if right else found["answers"])
