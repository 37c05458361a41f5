"""An agent that is stopped, or killed, goes on with the features of one that never was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.client import AgentClient
from edge_agent.memory_file import FILE
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Keep
from edge_core.release import ReleaseRef
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_requests import DEFINITION, Story, define, story, tiny_requests

OFTEN, AT_THE_END = "[memory]\nstore_seconds = 0.1\n", "[memory]\nstore_seconds = 0.0\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RepositorySimulator]:
    with RepositorySimulator(tmp_path_factory.mktemp("source")) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def parcels(repository: RepositorySimulator) -> ReleaseRef:
    return repository.publish("1.0.0", build=tiny_requests)


def ready(device: Device) -> dict[str, Any]:
    """Wait until a release answers; what the agent says then."""
    found: dict[str, Any] = {}

    def active() -> bool:
        found.update(device.status())
        return found.get("active") is not None

    wait_for(active, seconds=20, what="a release that serves")
    return found


def started(device: Device, ref: ReleaseRef) -> Process:
    """The first start, up to the release that it was ordered to run."""
    device.order(ref, 1)
    agent = device.agent().start()
    wait_for(device.settled, seconds=20, what="the first release")
    return agent


def restarted(device: Device, agent: Process, *, kill: bool) -> dict[str, Any]:
    if kill:
        agent.kill()
    else:
        assert agent.stop() == 0
    agent.start()
    return ready(device)


def tell(device: Device, told: Story, first: int, before: int) -> list[list[float]]:
    """Some of a log's events and the requests that came among them; the scores."""
    arrived = np.asarray(told.events.arrived_us)
    asked = np.asarray(told.request["at"])
    bounds = [arrived[first], arrived[before] if before < len(arrived) else arrived[-1] + 10**9]
    steps = [(int(arrived[place]), 0, place) for place in range(first, before)]
    within = np.flatnonzero((asked >= bounds[0]) & (asked < bounds[1]))
    steps += [(int(asked[place]), 1, place) for place in within.tolist()]
    scores = []
    with AgentClient(device.socket) as client:
        for _, kind, place in sorted(steps):
            if kind:
                request = {name: [list(part)[place]] for name, part in told.request.items()}
                scores.append(client.ask(request)[0].scores)
            else:
                one = told.events.only(np.array([place]))
                client.observe("parcels", one[0], one[1], one.fields, one.arrived_us)
    return scores


@pytest.mark.parametrize("kill", [False, True])
def test_requests_are_answered_as_if_nothing_had_happened(
    repository: RepositorySimulator, parcels: ReleaseRef, tmp_path: Path, kill: bool
) -> None:
    told, parts = story(150, 60), [(0, 40), (40, 77), (77, 150)]
    steady = Device(tmp_path / "steady", repository)
    agent = started(steady, parcels)
    expected = [tell(steady, told, *part) for part in parts]
    assert sum(map(len, expected)) > 50
    assert agent.stop() == 0
    unsteady = Device(tmp_path / "unsteady", repository, settings=OFTEN if kill else AT_THE_END)
    agent = started(unsteady, parcels)
    assert ready(unsteady)["memory"] == "empty"
    for part, scores in zip(parts, expected, strict=True):
        assert tell(unsteady, told, *part) == scores
        if kill:
            unsteady.stored()
        said = restarted(unsteady, agent, kill=kill)
        assert (said["memory"], said["memory_refused"]) == ("restored", 0)
    agent.stop()


def test_what_came_after_the_last_store_is_lost_by_a_kill_and_nothing_else(
    repository: RepositorySimulator, parcels: ReleaseRef, tmp_path: Path
) -> None:
    told = story(150, 60)
    device = Device(tmp_path, repository, settings=AT_THE_END)
    agent = started(device, parcels)
    tell(device, told, 0, 70)
    restarted(device, agent, kill=False)
    tell(device, told, 70, 90)
    restarted(device, agent, kill=True)
    found = tell(device, told, 90, 150)
    agent.stop()
    kept = np.r_[0:70, 90:150]
    evaluator = RequestEvaluator(DEFINITION)
    features = evaluator.replay({"parcels": told.events.only(kept)}, told.request)
    whole = RequestEvaluator(DEFINITION).replay({"parcels": told.events}, told.request)
    late = np.asarray(told.request["at"]) >= np.asarray(told.events.arrived_us)[90]
    assert (features[late] != whole[late]).any()
    other = Device(tmp_path / "other", repository)
    agent = started(other, parcels)
    tell(other, told, 0, 70)
    assert tell(other, Story(told.events.only(kept), told.request), 70, 130) == found
    agent.stop()


def test_sensor_windows_go_on_in_the_middle(
    repository: RepositorySimulator, tmp_path: Path
) -> None:
    ref = repository.publish("7.0.0")
    rng = np.random.default_rng(5)
    times = 20_000 * np.arange(1, 41)
    samples = rng.normal(size=(40, 2)).astype(np.float32)

    def push(device: Device, first: int, before: int) -> list[list[float]]:
        with AgentClient(device.socket) as client:
            rows = slice(first, before)
            pushed = client.push("wrist", times[rows], samples[rows])
            pushed += client.push("hip", times[rows], samples[rows] / 2)
            return [answer.scores for answer in pushed]

    steady = Device(tmp_path / "steady", repository)
    agent = started(steady, ref)
    expected = [push(steady, 0, 13), push(steady, 13, 22), push(steady, 22, 40)]
    agent.stop()
    device = Device(tmp_path / "unsteady", repository, settings=OFTEN)
    agent = started(device, ref)
    assert push(device, 0, 13) == expected[0]
    assert restarted(device, agent, kill=False)["memory"] == "restored"
    assert push(device, 13, 22) == expected[1]
    device.stored()
    assert restarted(device, agent, kill=True)["memory"] == "restored"
    assert push(device, 22, 40) == expected[2]
    agent.stop()


@pytest.mark.parametrize("harm", ["damaged", "foreign", "old"])
def test_what_cannot_be_used_is_said_and_the_agent_serves(
    repository: RepositorySimulator, parcels: ReleaseRef, tmp_path: Path, harm: str
) -> None:
    settings = "[memory]\nmax_age_seconds = 0.05\n" if harm == "old" else ""
    device = Device(tmp_path, repository, settings=settings)
    agent = started(device, parcels)
    tell(device, story(40, 10), 0, 40)
    agent.stop()
    path = device.state / FILE
    if harm == "damaged":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    if harm == "foreign":
        other = repository.publish("1.5.0", build=tiny_requests, definition=define(Keep(events=99)))
        device.order(other, 2)
    agent.start()
    if harm == "foreign":
        wait_for(device.settled, seconds=20, what="the other release")
    said = ready(device)
    reasons = {
        "damaged": "its bytes are not those of its digest",
        "foreign": "has other features than the release before",
        "old": "was stored 0.0 hours ago",
    }
    agent.wait_for_text(reasons[harm])
    # The release of the first start took the memory; the one that came after it began empty.
    assert said["memory_refused"] == (0 if harm == "foreign" else 1)
    assert said["memory"] == "empty"
    with AgentClient(device.socket) as client:
        assert len(client.ask({"place": ["p1"], "size": [1.0]})) == 1
    assert agent.stop() == 0
