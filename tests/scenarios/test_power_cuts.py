"""An update survives ``kill -9`` at file operations all along its way."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.client import AgentClient
from edge_agent.update.journal import Entry, Journal
from edge_core.errors import Unavailable
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET, tiny_rows

CUTS = 16

SETTINGS = """
device = "watch-1"
target = "{target}"
state_dir = "{state}"
[repository]
url = "{url}"
trusted_root = "{root}"
[mqtt]
host = "127.0.0.1"
port = 9
[serving]
socket = "{folder}/agent.sock"
[update]
probation_seconds = 0.3
probation_rows = 0
"""


class Device:
    """One agent's state folder; orders stand in its journal, so that no broker is needed."""

    def __init__(self, folder: Path, repository: RepositorySimulator) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        root = folder / "root.json"
        root.write_bytes(repository.root)
        self.config = folder / "agent.toml"
        self.config.write_text(
            SETTINGS.format(
                target=TARGET, state=self.state, folder=folder, url=repository.url, root=root
            )
        )

    def order(self, ref: ReleaseRef, revision: int) -> None:
        """Write the order as if it had just come in."""
        desired = DesiredState(revision=revision, issued_ms=0, active=ref)
        Journal(self.state).write(Entry(state="downloading", desired=desired))

    def agent(self) -> Process:
        """An agent that runs until it is stopped."""
        arguments = [*command("serinus-agent"), "run", "--config", str(self.config)]
        return Process(arguments, self.folder / "agent.log")

    def cut(self, number: int) -> Process:
        """An agent that dies at the numbered file operation."""
        arguments = [str(self.state), str(number), str(self.folder / "count"), "run"]
        module = [sys.executable, "-m", "tests.simulators.power_cut"]
        return Process(
            [*module, *arguments, "--config", str(self.config)], self.folder / "agent.log"
        )

    def crashing(self, function: str) -> Process:
        """An agent that dies as soon as this function opens a file."""
        module = [sys.executable, "-m", "tests.simulators.crash_in", function, "run"]
        return Process([*module, "--config", str(self.config)], self.folder / "agent.log")

    def die_at(self, number: int) -> None:
        """Let the agent die at the numbered file operation, or just after its last one."""
        killed = self.cut(number).start()
        wait_for(
            lambda: not killed.running or self.settled(), seconds=20, what=f"the cut at {number}"
        )
        killed.kill()

    def serves(self) -> str:
        """Version that answers a prediction now."""
        try:
            with AgentClient(self.folder / "agent.sock") as client:
                return client.predict(tiny_rows(1)[0])[0].version
        except (Unavailable, OSError):
            return ""

    def settled(self) -> bool:
        """Whether the update was committed."""
        return Journal(self.state).read().state == "committed"


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
