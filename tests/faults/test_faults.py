"""A part of every fault case; ``make faults`` runs all points."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_server.broker.process import PLACES
from tests.faults import catalogue
from tests.faults.soak import POOL_THREADS, Held, growth

HAS_MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path=":".join(PLACES))
needs_mosquitto = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")
MEBIBYTE = 1024 * 1024


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the faults fork, and this one has threads."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )


@needs_mosquitto
def test_a_part_of_the_points_of_every_case_is_survived(tmp_path: Path) -> None:
    report = tmp_path / "faults.json"
    done = run("tests.faults", "--quick", "--report", str(report))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    cases = json.loads(report.read_text())["cases"]
    assert [case["name"] for case in cases] == [case.name for case in catalogue.CASES]
    assert all(case["points"] == case["survived"] for case in cases)
    assert sum(case["points"] for case in cases) > 100


@needs_mosquitto
def test_a_point_that_is_not_survived_ends_it_non_zero_and_is_named(tmp_path: Path) -> None:
    # No device has an operation of this number, so that the kill never comes.
    report = tmp_path / "faults.json"
    arguments = ("--case", "outbox_kill", "--point", "100000", "--report", str(report))
    done = run("tests.faults", *arguments)
    assert done.returncode == 1
    assert "again: python -m tests.faults --case outbox_kill --point 100000" in done.stdout
    assert json.loads(report.read_text()) == {
        "cases": [{"name": "outbox_kill", "points": 1, "survived": 0}]
    }


def test_an_unknown_case_is_refused_with_the_known_ones() -> None:
    done = run("tests.faults", "--case", "flood")
    assert done.returncode == 2
    assert "kill_journal" in done.stderr


@needs_mosquitto
def test_a_short_soak_holds_no_more_than_after_its_warm_up(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    # So short that the allocator has not settled: a tenth instead of a twentieth.
    sizes = ("--updates", "20", "--predictions", "50000", "--share", "0.1")
    done = run("tests.faults.soak", *sizes, "--report", str(report))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    looks = json.loads(report.read_text())["looks"]
    assert (looks[-1]["updates"], looks[-1]["predictions"]) == (20, 50_000)


def test_growth_is_noticed() -> None:
    first = Held(updates=1, predictions=1, rss_bytes=100 * MEBIBYTE, descriptors=20, threads=7)
    threads = 8 + POOL_THREADS
    last = Held(updates=9, predictions=9, rss_bytes=106 * MEBIBYTE, descriptors=21, threads=threads)
    assert [line.split()[0] for line in growth([first, last], 0.05)] == [
        "memory",
        "descriptors",
        "threads",
    ]
    assert growth([first, first], 0.05) == []
