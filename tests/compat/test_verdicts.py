"""Stored verdicts are judged again to the same bytes, by whatever method they were judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet_server.domain.evidence import METHOD
from fleet_server.domain.verdict import judge
from fleet_server.services.verdicts import Inputs

HERE = Path(__file__).parent
STORED: list[tuple[int, dict[str, str]]] = [
    (method, stored)
    for method in (1, 2)
    for stored in json.loads((HERE / f"v{method}" / "verdicts.json").read_text())
]
"""Method, and a name with the inputs and the result as they were stored."""

AGAIN = """
import sys, msgspec
from fleet_server.domain.verdict import judge
from fleet_server.services.verdicts import Inputs
inputs = msgspec.json.decode(sys.stdin.buffer.read(), type=Inputs)
sys.stdout.buffer.write(msgspec.json.encode(judge(inputs.stage, inputs.plan, inputs.evidence)))
"""


@pytest.mark.parametrize(("method", "stored"), STORED)
def test_a_stored_verdict_comes_out_as_it_did(method: int, stored: dict[str, str]) -> None:
    inputs = msgspec.json.decode(stored["inputs"], type=Inputs)
    assert inputs.evidence.method == method
    verdict = judge(inputs.stage, inputs.plan, inputs.evidence)
    assert msgspec.json.encode(verdict).decode() == stored["result"]


def test_every_method_has_samples_of_every_decision() -> None:
    found = {(method, json.loads(stored["result"])["decision"]) for method, stored in STORED}
    decisions = ("promote", "hold", "rollback")
    assert found == {(m, d) for m in range(1, METHOD + 1) for d in decisions}


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_gives_the_same_numbers(seed: str) -> None:
    """Whatever order its sets and dictionaries have."""
    stored: dict[str, Any] = STORED[-2][1]
    done = subprocess.run(
        [sys.executable, "-c", AGAIN],
        input=stored["inputs"].encode(),
        capture_output=True,
        check=True,
        cwd=HERE.parents[1],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.stdout.decode() == stored["result"]
