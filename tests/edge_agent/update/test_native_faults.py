"""Releases whose native code ends or hangs the process, as real processes that a test restarts."""

import signal
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from edge_agent.update.journal import Journal
from edge_core.errors import Unavailable
from edge_core.release import ReleaseRef
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import tiny_rows

SECONDS = 30.0
STARTS = 3
"""The setting ``max_starts`` of the agent; the start after these recovers."""


def install(folder: Path, repository: RepositorySimulator, *refs: ReleaseRef) -> Device:
    """A device that committed these releases, one after the other; it then asks for long trials."""
    device = Device(folder, repository)
    for number, ref in enumerate(refs):
        device.order(ref, number + 1, known=True)
        with device.agent() as agent:
            wait_for(lambda: device.settled(), seconds=SECONDS, what="a commit")
            assert agent.stop() == 0
    return Device(folder, repository, probation=600.0, settings="hang_seconds = 3.0\n")


def ask(device: Device) -> str:
    """Who answers: version and part; empty where the process ends instead."""
    try:
        with AgentClient(device.socket) as client:
            answer = client.predict(tiny_rows(1)[0])[0]
            return f"{answer.version} {answer.served_by}"
    except (Unavailable, OSError):
        return ""


def failed(device: Device) -> bool:
    """Whether the update came to its end, and something serves."""
    return device.status().get("update") == "failed" and bool(ask(device))


def serving(device: Device, agent: Process) -> bool:
    """Whether the agent serves a release, or is dead already."""
    return not agent.running or bool(device.status().get("active"))


def live(device: Device) -> int | None:
    """One life of the process, with a request in it; how it ended, none where it lives on."""
    agent = device.faulty().start()
    try:
        wait_for(lambda: serving(device, agent), seconds=SECONDS, what="a release that serves")
        if ask(device):
            return None
        wait_for(lambda: not agent.running, seconds=SECONDS, what="the end of the process")
        return agent.code
    finally:
        agent.kill()


ENDS = {
    "open": -signal.SIGSEGV,
    "run": -signal.SIGSEGV,
    "hang": -signal.SIGABRT,
    "lock": 1,
}


@pytest.mark.parametrize("mode", ENDS)
def test_a_release_that_was_proven_and_now_ends_the_process_is_left_after_some_starts(
    tmp_path: Path, repository: RepositorySimulator, mode: str
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    device = install(tmp_path / "device", repository, first, second)
    repository.stop()
    device.fault.write_text(f"{second.digest} {mode}")
    assert [live(device) for _ in range(STARTS)] == [ENDS[mode]] * STARTS
    with device.faulty():
        wait_for(lambda: failed(device), seconds=SECONDS, what="the way back")
        assert ask(device) == "1.0.0 model"
        status = device.status()
        assert "tiny-motion@1.1.0 ends the process: more than 3 starts" in status["reason"]
        entry = Journal(device.state).read()
        assert [refusal.release for refusal in entry.refusals] == [second]
    log = (device.folder / "agent.log").read_text()
    if mode == "hang":
        assert "the inference thread does not answer for" in log
    if mode in ("hang", "lock"):
        assert "faulty_runtime.py" in log  # the traceback names who was stuck
    assert live(device) is None  # and it stays so


def test_where_nothing_can_follow_the_fallback_answers_alone(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    device = install(tmp_path / "device", repository, first)
    device.fault.write_text(f"{first.digest} open")
    assert [live(device) for _ in range(STARTS)] == [-signal.SIGSEGV] * STARTS
    for _ in range(STARTS + 2):  # the model is not opened any more, however often it starts
        with device.faulty():
            wait_for(lambda: failed(device), seconds=SECONDS, what="the fallback")
            assert ask(device) == "1.0.0 fallback"
            status = device.status()
            assert "ends the process" in status["reason"]
            assert status["runtime"].startswith("none: the model is not opened")
    # Another release is taken all the same.
    device = Device(device.folder, repository)
    device.order(second, 9, known=True)
    with device.faulty():
        wait_for(lambda: ask(device) == "1.1.0 model", seconds=SECONDS, what="another release")


def test_a_new_release_that_ends_the_process_in_its_self_test_is_refused(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    device = install(tmp_path / "device", repository, first)
    device.fault.write_text(f"{second.digest} run")
    device.order(second, 9, known=True)
    for _ in range(STARTS + 1):
        agent = device.faulty().start()
        wait_for(lambda: not agent.running, seconds=SECONDS, what="the end")  # noqa: B023
        assert agent.code == -signal.SIGSEGV
    with device.faulty():
        wait_for(lambda: failed(device), seconds=SECONDS, what="a refusal")
        assert ask(device) == "1.0.0 model"
        assert "more than 3 starts in self_testing" in device.status()["reason"]


def test_orderly_restarts_are_not_held_against_a_release(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    device = install(tmp_path / "device", repository, first, second)
    for _ in range(STARTS + 2):
        with device.faulty() as agent:
            wait_for(lambda: bool(ask(device)), seconds=SECONDS, what="an answer")
            assert agent.stop() == 0
    with device.faulty():
        wait_for(lambda: bool(ask(device)), seconds=SECONDS, what="an answer")
        assert ask(device) == "1.1.0 model"
        assert device.status()["update"] == "committed"
