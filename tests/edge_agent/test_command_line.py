"""``serinus-agent serve``: which target and ports it takes, and how fast it has to load nothing."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from edge_agent.client import AgentClient
from tests.simulators.processes import Process, command, free_port
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows

WRONG_USE, BAD_INPUT = 1, 2


def test_serve_finds_the_target_of_this_machine_and_answers_over_rest_too(tmp_path: Path) -> None:
    bundle, path, port = tiny_bundle(tmp_path / "bundle"), tmp_path / "agent.sock", free_port()
    arguments = ["serve", str(bundle), "--socket", str(path), "--rest-port", str(port)]
    with Process([*command("serinus-agent"), *arguments], tmp_path / "agent.log") as agent:
        agent.wait_for_text("serving tiny-motion@1.0.0", seconds=20)
        samples, _ = tiny_rows(1)
        with AgentClient(path) as client:
            (answer,) = client.predict(samples)
        assert answer.target == TARGET
        tensor = {"name": "samples", "datatype": "FP32", "shape": [1, 8, 2]}
        body = {"inputs": [{**tensor, "data": samples.ravel().tolist()}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/models/tiny-motion/infer", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            found = json.load(response)
        assert found["outputs"][0]["data"] == answer.scores
    assert "Traceback" not in agent.log.read_text()


def test_twins_and_wrong_ports_are_refused(tmp_path: Path) -> None:
    bundle = str(tiny_bundle(tmp_path / "bundle"))
    socket = ["--socket", str(tmp_path / "agent.sock")]
    for arguments, code, said in (
        (
            [bundle, bundle, *socket],
            BAD_INPUT,
            "are the same model; serve one of them",
        ),
        ([bundle, *socket, "--rest-port", "70000"], WRONG_USE, "'70000' is no port"),
        ([*socket], WRONG_USE, "BUNDLE"),
    ):
        done = subprocess.run(
            [*command("serinus-agent"), "serve", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)
        assert said in done.stderr.splitlines()[-1]


LOADED = """
import sys
from {module} import {names}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def loaded(module: str, names: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module, names=names)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_first_answer_waits_for_nothing_that_it_does_not_need() -> None:
    heavy = {"pandas", "pyarrow", "scipy", "starlette", "uvicorn", "onnxruntime", "ai_edge_litert"}
    assert not loaded("edge_agent.agent", "Agent") & heavy
    fleet = {"tuf", "paho", "sqlite3", "urllib3", "cryptography"}
    assert not loaded("edge_agent.serving", "standalone") & (heavy | fleet)
    assert not loaded("edge_agent.__main__", "main") & (heavy | fleet | {"numpy", "asyncio"})
