"""An update survives ``kill -9`` at file operations all along its way."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.update.journal import Journal
from edge_core.messages.deployment import DesiredState
from tests.simulators.lone_device import Device
from tests.simulators.processes import wait_for
from tests.simulators.repository import RepositorySimulator

CUTS = 16


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RepositorySimulator]:
    with RepositorySimulator(tmp_path_factory.mktemp("source")) as simulator:
        yield simulator


def test_after_a_cut_anywhere_a_release_serves_and_the_update_still_ends(
    repository: RepositorySimulator, tmp_path: Path
) -> None:
    old, new = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    device = Device(tmp_path, repository)
    device.order(old, 1)
    with device.agent():
        wait_for(device.settled, seconds=20, what="the first release")
    device.order(new, 2)
    shutil.copytree(device.state, tmp_path / "before")
    with device.cut(0) as whole:
        wait_for(device.settled, seconds=20, what="an update without a cut")
        whole.stop()
    total = int((tmp_path / "count").read_text())
    assert total > CUTS
    served = set()
    for number in range(1, total + 1, total // CUTS):
        shutil.rmtree(device.state)
        shutil.copytree(tmp_path / "before", device.state)
        device.die_at(number)
        with device.agent():
            wait_for(lambda: device.serves() != "", seconds=20, what=f"service after cut {number}")
            served.add(device.serves())
            wait_for(device.settled, seconds=20, what=f"the update after cut {number}")
            wait_for(lambda: device.serves() == "1.1.0", seconds=20, what="1.1.0")
        slots = [path.name for path in (device.state / "slots").iterdir()]
        assert sorted(slots) == sorted([old.digest, new.digest]), f"cut {number}: {slots}"
    assert served <= {"1.0.0", "1.1.0"}
    assert "1.0.0" in served


def test_a_release_that_kills_the_agent_in_its_self_test_is_given_up(
    repository: RepositorySimulator, tmp_path: Path
) -> None:
    old, deadly = repository.publish("2.0.0"), repository.publish("2.1.0", seed=1)
    device = Device(tmp_path, repository)
    device.order(old, 1)
    with device.agent():
        wait_for(device.settled, seconds=20, what="the first release")
    journal = Journal(device.state)
    wish = DesiredState(revision=2, issued_ms=0, active=deadly)
    entry = msgspec.structs.replace(journal.read(), state="downloading", desired=wish)
    journal.write(entry)
    deaths = 0
    while journal.read().state != "failed":
        with device.crashing("self_test") as agent:
            wait_for(
                lambda agent=agent: not agent.running or journal.read().state == "failed",
                seconds=20,
                what="a crash or the end of them",
            )
        deaths += journal.read().state != "failed"
        assert deaths < 10
    assert deaths == 4
    assert [refusal.release for refusal in journal.read().refusals] == [deadly]
    with device.agent():
        wait_for(lambda: device.serves() == "2.0.0", seconds=20, what="the old release")


def test_the_agent_of_the_cuts_really_dies_by_sigkill(
    repository: RepositorySimulator, tmp_path: Path
) -> None:
    device = Device(tmp_path, repository)
    arguments = device.cut(1).arguments
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
