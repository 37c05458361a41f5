import json
import subprocess
from pathlib import Path

import pytest

from edge_agent.command_line import status_view
from edge_agent.command_line.status_view import Value
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import tiny_bundle

NOW_MS = 1_700_000_000_000
STATUS: dict[str, Value] = {
    "device": "watch-1",
    "active": "tiny@1.0.0",
    "rows": 1234567,
    "errors": 0,
    "update": "committed",
    "connected": False,
    "unsent_bytes": 3 * 1024 * 1024,
    "dropped_messages": 7,
    "memory": "restored",
    "started_at_ms": NOW_MS - 2 * 86_400_000 - 3 * 3_600_000,
    "brand_new": "thing",
}


def test_a_person_reads_words_units_and_ages() -> None:
    page = status_view.page(STATUS, NOW_MS, colours=False)
    said = {
        line.split("  ")[1]: line.split("  ")[-1].strip()
        for line in page.splitlines()
        if "  " in line
    }
    assert said["release"] == "tiny@1.0.0"
    assert said["rows answered"] == "1,234,567"
    assert said["state"] == "committed, up to date"
    assert said["connected"].startswith("no; serving goes on")
    assert said["unsent"] == "3 MiB"
    assert said["began"] == "went on with what was stored"
    assert said["started at ms"] == "2 days 3 h ago"
    assert said["brand new"] == "thing"
    headings = [line for line in page.splitlines() if not line.startswith(" ")]
    assert headings == ["Device", "Serving", "Update", "Fleet", "Memory of features", "Also"]
    assert "\x1b" not in page


def test_colours_mark_what_is_good_and_bad() -> None:
    page = status_view.page(STATUS, NOW_MS, colours=True)
    assert "\x1b[32mtiny@1.0.0\x1b[0m" in page
    assert "\x1b[31m7\x1b[0m" in page


def test_foreign_texts_cannot_move_the_cursor() -> None:
    page = status_view.page({"active": "a", "reason": "\x1b[2Jgone\nDevice"}, NOW_MS, colours=False)
    assert "\x1b" not in page
    assert page.count("Device") == 1
    assert "?[2Jgone?Device" in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.5, "59.5 s"), (60, "1 min"), (3700, "1 h 1 min"), (86400, "1 day")],
)
def test_spans(seconds: float, text: str) -> None:
    assert status_view.lasting(seconds) == text


def test_a_moment_of_no_calendar_is_shown_all_the_same() -> None:
    assert status_view.moment(1_700_000_000_123) == "2023-11-14T22:13:20.123+00:00"
    assert status_view.moment(10**18) == f"{10**18:,} ms"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (64 * 2**20, "64 MiB"),
        (2**40, "1024.0 GiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert status_view.sized(size) == text


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    whole = [*command("serinus-agent"), "status", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def test_a_serving_agent_is_shown_and_a_machine_gets_json(tmp_path: Path) -> None:
    bundle, path = tiny_bundle(tmp_path / "bundle"), tmp_path / "agent.sock"
    arguments = [*command("serinus-agent"), "serve", str(bundle), "--socket", str(path)]
    with Process(arguments, tmp_path / "agent.log") as agent:
        agent.wait_for_text("serving tiny-motion@1.0.0", seconds=20)
        shown = status("--socket", str(path))
        assert shown.returncode == 0, shown.stderr
        assert "tiny-motion@1.0.0" in shown.stdout
        assert "\x1b" not in shown.stdout
        found = json.loads(status("--socket", str(path), "--json").stdout)
        assert found["active"] == "tiny-motion@1.0.0"
    gone = status("--socket", str(path))
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "start it with" in gone.stderr


def test_an_agent_that_serves_nothing_ends_with_three(tmp_path: Path) -> None:
    with RepositorySimulator(tmp_path / "repository") as repository:
        device = Device(tmp_path / "device", repository)
        with device.agent():
            wait_for(lambda: bool(device.status()), seconds=20, what="the agent")
            shown = status("--config", str(device.config))
            assert shown.returncode == status_view.NOTHING_SERVES
            assert "none: no release was rolled out here yet" in shown.stdout
            assert (
                json.loads(status("--config", str(device.config), "--json").stdout)["active"]
                is None
            )
