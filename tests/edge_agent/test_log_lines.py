import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import log_lines
from edge_agent.config import Log
from edge_agent.log_lines import Writer
from tests.simulators.lone_device import Device
from tests.simulators.processes import wait_for
from tests.simulators.repository import RepositorySimulator


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log_lines")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers.clear()


def attached(log: logging.Logger, settings: Log, *, journal: bool = False) -> io.StringIO:
    stream = io.StringIO()
    writer = Writer(settings, stream, journal=journal)
    writer.fields = lambda: {"device": "d1", "release": None, "update": "idle"}
    log.addHandler(writer)
    return stream


def test_json_has_one_object_a_line_with_the_fields(log: logging.Logger) -> None:
    stream = attached(log, Log(format="json"))
    log.warning("%s of\n%d", "two", 3, extra={"attempt": 2, "path": Path("/x")})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "warning",
        "logger": "tests.log_lines",
        "message": "two of\n3",
        "device": "d1",
        "update": "idle",
        "attempt": 2,
        "path": "/x",
    }


def test_json_holds_a_traceback_in_its_line(log: logging.Logger) -> None:
    stream = attached(log, Log(format="json"))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_text_has_a_time_and_names_what_is_serious(log: logging.Logger) -> None:
    stream = attached(log, Log())
    log.info("serves")
    log.error("fails")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z serves", first)
    assert second.endswith("Z error: fails")


def test_the_journal_gets_priorities_and_no_times(log: logging.Logger) -> None:
    stream = attached(log, Log(), journal=True)
    log.info("serves")
    log.error("fails")
    assert stream.getvalue() == "<6>serves\n<3>fails\n"


INSTALLED = """
import logging, os, sys
from edge_agent import log_lines
from edge_agent.config import Log
found = os.fstat(1)
here = f"{found.st_dev}:{found.st_ino}" if sys.argv[1] == "here" else sys.argv[1]
log_lines.install(Log(level="warning"), here)
logging.getLogger("a").info("quiet")
logging.getLogger("a").warning("loud")
"""


@pytest.mark.parametrize(
    ("stream", "line"),
    [("here", r"<4>loud"), ("0:0", r".*Z warning: loud"), ("", r".*Z warning: loud")],
)
def test_the_journal_is_told_from_other_outputs_and_the_level_counts(
    stream: str, line: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, stream], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(line, done.stdout.strip())


def test_an_output_without_a_descriptor_is_no_journal() -> None:
    assert not log_lines._is_journal(io.StringIO(), "1:1")


def test_a_running_agent_logs_its_device_and_state_in_json(tmp_path: Path) -> None:
    with RepositorySimulator(tmp_path / "repository") as repository:
        device = Device(tmp_path / "device", repository, settings='[log]\nformat = "json"\n')
        with device.agent() as agent:
            wait_for(lambda: bool(device.status()), seconds=20, what="the agent")
            wait_for(lambda: "serves on" in agent.log.read_text(), seconds=20, what="its log")
        lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    assert lines
    assert {line["device"] for line in lines} == {"watch-1"}
    assert {line["update"] for line in lines} == {"idle"}
    assert any("serves on" in line["message"] for line in lines)
