"""What is packaged around the agent fits it, as far as the tools of this machine can tell."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.command_line import parser

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "serinus-agent.service"
AGENT = "/usr/bin/serinus-agent"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def commands(text: str) -> list[list[str]]:
    """Every command line of the agent in a file."""
    found = re.findall(r"ExecStart=/usr/bin/serinus-agent (.*)", text)
    lists = re.findall(r"^(?:    )?CMD \[(.*)\]", text, re.MULTILINE)
    return [line.split() for line in found] + [re.findall(r'"([^"]*)"', line) for line in lists]


@pytest.mark.parametrize("name", ["serinus-agent.service", "Containerfile"])
def test_the_agent_understands_how_it_is_started_and_asked(name: str) -> None:
    found = commands((PACKAGING / name).read_text())
    assert found
    for arguments in found:
        options = parser.build().parse_args([a for a in arguments if a != "serinus-agent"])
        assert options.command in ("run", "status")


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(AGENT, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("WatchdogSec=120", "WatchdogSec=soon"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert "ignoring: soon" in done.stderr


@needs_systemd
def test_the_unit_is_hardened() -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=30",
            "--no-pager",
            str(UNIT),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
