"""Every attack is refused by a device that serves on; and a device that obeys would be noticed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_server.broker import PLACES
from tests.faults.case import Case, Site
from tests.faults.running import run_all
from tests.security.attacked import refuses

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


def test_attacks_are_refused_and_the_device_serves_on(tmp_path: Path) -> None:
    report = tmp_path / "security.json"
    done = run("-m", "tests.security", "--report", str(report))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    rows = json.loads(report.read_text())["scenarios"]
    assert len(rows) >= 21
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
