"""What the converter builds is what a device serves: bundles meet the device's own self-test."""

import os
import subprocess
from pathlib import Path

import pytest

from edge_agent.serving.release import LoadedRelease
from edge_agent.update.self_test import self_test
from tests.simulators.processes import command

RECIPES = Path(__file__).parents[2] / "firmware_bundles"
TARGETS = ("cpu-x86_64-ort", "cpu-x86_64-tflite")


@pytest.fixture(scope="module", params=["watch_activity", "digits", "flight_delay"])
def bundle(
    request: pytest.FixtureRequest, stages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The newest release of each recipe: two take raw windows, one features of requests."""
    folder = tmp_path_factory.mktemp(request.param)
    done = subprocess.run(
        [
            *(*command("serinus-convert"), "build", str(RECIPES / request.param)),
            *("--targets", ",".join(TARGETS), "--out", str(folder / "bundle")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SERINUS_CACHE": str(stages)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle"


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_built_passes_the_self_test(bundle: Path, target: str) -> None:
    release = LoadedRelease.open(bundle, target)
    kinds = {"samples": "windows", "features": "requests"}
    assert release.kind == kinds[release.manifest.input]
    self_test(release)
