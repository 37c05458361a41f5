"""Every attack is refused while all serve on; and whoever obeys or falls silent is noticed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_server.broker.process import PLACES
from tests.faults.case import Case, Site
from tests.faults.running import Outcome, run_all
from tests.security.__main__ import CASES, SCENARIOS, _row
from tests.security.attacked import NotServing, refuses
from tests.security.scenario import Tries, expect

ROOT = Path(__file__).parents[2]
mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path=":".join(PLACES))
pytestmark = pytest.mark.skipif(mosquitto is None, reason="needs mosquitto")
CONTROL = """
import tempfile
from pathlib import Path
from tests.security.test_security import control
with tempfile.TemporaryDirectory(prefix="c-") as folder:
    control(Path(folder))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process without threads, for it forks."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_attacks_are_refused_and_all_serve_on(tmp_path: Path) -> None:
    report = tmp_path / "security.json"
    done = run("-m", "tests.security", "--report", str(report))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    rows = json.loads(report.read_text())["scenarios"]
    assert [row["name"] for row in rows] == [
        *(case.name for case in CASES),
        *(scenario.name for scenario in SCENARIOS),
    ]
    assert len(rows) >= 43
    assert sum(row["tried"] for row in rows) > 180
    assert all(row["tried"] == row["refused"] == row["still_serving"] > 0 for row in rows)


def control(folder: Path) -> None:
    """What the attacks would find of a device that does what it is told."""

    def honest(site: Site, point: str) -> None:
        refuses(site, lambda repository: site.stage.new, "anything")

    case = Case(name="honest", what="", points=lambda site: ["once"], run=honest)
    (outcome,) = run_all([case], folder, quick=False, workers=1, only=None)
    print(json.dumps(outcome.failures))


def test_a_device_that_takes_a_release_is_noticed() -> None:
    done = run("-c", CONTROL)
    ((_, why),) = json.loads(done.stdout.splitlines()[-1])
    assert "serves after the attack" in why


class Silent:
    """A fleet of which somebody fell silent."""

    def __init__(self, said: str) -> None:
        self.said = said

    def silent(self) -> str:
        return self.said


@pytest.mark.parametrize(
    ("said", "held", "refused", "serving"),
    [("", True, 1, 1), ("", False, 0, 1), ("the device is away", True, 0, 0)],
)
def test_what_comes_through_and_who_falls_silent_is_counted(
    said: str, held: bool, refused: int, serving: int
) -> None:
    outcome = Outcome("x")
    with Tries(Silent(said), outcome)("it"):  # type: ignore[arg-type]  # all that it asks
        expect(held, "it came through")
    row = _row(outcome)
    assert (row["tried"], row["refused"], row["still_serving"]) == (1, refused, serving)


def test_a_device_of_a_repository_attack_that_falls_silent_is_counted() -> None:
    outcome = Outcome("x", points=1, failures=[("once", str(NotServing("it is away")))])
    assert _row(outcome)["still_serving"] == 0
