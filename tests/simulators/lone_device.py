"""One agent as a real process on a state folder of its own, without a broker."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.client import AgentClient
from edge_agent.update.journal import Entry, Journal
from edge_core.errors import Unavailable
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET, tiny_rows

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
probation_seconds = {probation}
probation_rows = 0
"""


class Device:
    """One agent's state folder; orders stand in its journal, so that no broker is needed."""

    def __init__(
        self,
        folder: Path,
        repository: RepositorySimulator,
        *,
        settings: str = "",
        probation: float = 0.3,
    ) -> None:
        """Write the settings file; ``settings`` are more lines of its table ``update``."""
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        root = folder / "root.json"
        root.write_bytes(repository.root)
        self.config = folder / "agent.toml"
        self.config.write_text(
            SETTINGS.format(
                target=TARGET,
                state=self.state,
                folder=folder,
                url=repository.url,
                root=root,
                probation=probation,
            )
            + settings
        )

    def order(self, ref: ReleaseRef, revision: int, *, known: bool = False) -> None:
        """Write the order as if it had just come in, to a new device or to one that is known."""
        desired = DesiredState(revision=revision, issued_ms=0, active=ref)
        entry = Journal(self.state).read() if known else Entry()
        Journal(self.state).write(
            msgspec.structs.replace(entry, state="downloading", desired=desired, reason="")
        )

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

    def faulty(self) -> Process:
        """An agent with a runtime that fails as the file ``fault`` says."""
        module = [sys.executable, "-m", "tests.simulators.faulty_runtime", str(self.fault)]
        return Process([*module, "run", "--config", str(self.config)], self.folder / "agent.log")

    @property
    def fault(self) -> Path:
        """What is wrong with the runtime of :meth:`faulty`."""
        return self.folder / "fault"

    def die_at(self, number: int) -> None:
        """Let the agent die at the numbered file operation, or just after its last one."""
        killed = self.cut(number).start()
        wait_for(
            lambda: not killed.running or self.settled(), seconds=20, what=f"the cut at {number}"
        )
        killed.kill()

    @property
    def socket(self) -> Path:
        """Where it serves."""
        return self.folder / "agent.sock"

    def status(self) -> dict[str, Any]:
        """What the agent says of itself; empty while it does not answer."""
        try:
            with AgentClient(self.socket) as client:
                return client.status()
        except (Unavailable, OSError):
            return {}

    def stored(self) -> None:
        """Wait until what its features remember now is on the disk."""
        wait_for(
            lambda: self.status().get("memory_stored") is True, seconds=10, what="a stored memory"
        )

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
