"""One real agent in a fork, its state folder, and whether it serves and tells the truth."""

import resource
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

import edge_agent.sending
import edge_agent.update.updater
from edge_agent.__main__ import main
from edge_agent.client import AgentClient
from edge_agent.update.fetching import check_slot
from edge_agent.update.journal import Journal
from edge_agent.update.slots import Slots
from edge_core.errors import InvalidBundle, SerinusError, Unavailable
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import ReportedState
from edge_core.release import ReleaseRef
from tests.faults.fleet import Fleet
from tests.faults.forks import Fork
from tests.faults.stage import Stage
from tests.simulators.tiny_bundle import TARGET, tiny_rows

SETTINGS = """\
device = "{name}"
target = "{target}"
state_dir = "{state}"
[repository]
url = "{url}"
trusted_root = "{root}"
[mqtt]
host = "127.0.0.1"
port = {port}
[serving]
socket = "{folder}/agent.sock"
[telemetry]
window_seconds = {window}
[memory]
store_seconds = 0
[sideload]
keys = ["{key}"]
[update]
probation_seconds = {probation}
probation_rows = 0
retry_seconds = 0.05
max_attempts = {attempts}
"""
SECONDS = 20.0
"""How long anything may take before it counts as never."""
RESTING = ("idle", "committed", "failed")


class Fault(Exception):
    """A point was not survived; the text says what was found instead."""


class Device:
    """A state folder and the agent on it."""

    def __init__(
        self,
        stage: Stage,
        fleet: Fleet,
        folder: Path,
        name: str,
        *,
        url: str = "",
        probation: float = 0.05,
        window: float = 3600.0,
        attempts: int = 5,
    ) -> None:
        self.stage = stage
        self.fleet = fleet
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.config = folder / "agent.toml"
        self.log = folder / "agent.log"
        text = SETTINGS.format(
            name=name,
            target=TARGET,
            state=self.state,
            folder=folder,
            url=url or stage.url,
            root=stage.root,
            port=stage.mqtt_port,
            probation=probation,
            window=window,
            key=stage.key,
            attempts=attempts,
        )
        self.config.write_text(text)
        fleet.follow(name)
        self._agent: Fork | None = None
        self.revision = 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.fleet.leave(self.name)

    # Its process.

    def start(self, prepare: Callable[[], None] | None = None) -> Fork:
        """Run the agent's command; ``prepare`` is called in its process before."""
        assert self._agent is None or not self._agent.running()
        self.fleet.reported.pop(self.name, None)
        # Waits that exist to save power on a device only cost time here.
        quick = {"SEND_SECONDS": 0.02, "FLUSH_SECONDS": 0.5}

        def run() -> int:
            for name, seconds in quick.items():
                setattr(edge_agent.sending, name, seconds)
            edge_agent.update.updater.POLL_SECONDS = 0.01
            if prepare is not None:
                prepare()
            return main(["run", "--config", str(self.config)])

        self._agent = Fork(run, self.log)
        return self._agent

    @property
    def agent(self) -> Fork:
        """The process that was started last."""
        assert self._agent is not None
        return self._agent

    def kill(self) -> None:
        """As a power cut does."""
        if self._agent is not None:
            self._agent.kill()

    def limit_memory(self, more: int) -> None:
        """Let the running agent's address space grow by this many bytes only."""
        text = Path(f"/proc/{self.agent.pid}/statm").read_text()
        now = int(text.split()[0]) * resource.getpagesize()
        _, hard = resource.prlimit(self.agent.pid, resource.RLIMIT_AS)
        resource.prlimit(self.agent.pid, resource.RLIMIT_AS, (now + more, hard))

    def patient(self, probation: float) -> None:
        """From the next start on, releases are on trial for so long."""
        lines = self.config.read_text().splitlines()
        changed = [
            f"probation_seconds = {probation}" if line.startswith("probation_seconds") else line
            for line in lines
        ]
        self.config.write_text("\n".join(changed) + "\n")

    # What it is told.

    def want(self, ref: ReleaseRef | None, shadow: ReleaseRef | None = None) -> DesiredState:
        """Wish for this release as the server does."""
        self.revision += 1
        desired = DesiredState(
            revision=self.revision, issued_ms=0, active=ref, shadow=shadow, arm="incumbent"
        )
        self.fleet.want(self.name, desired)
        return desired

    # What it says and does.

    def status(self) -> dict[str, Any]:
        """What it says of itself on the device; empty while it does not answer."""
        try:
            with AgentClient(self.folder / "agent.sock") as client:
                return client.status()
        except (Unavailable, OSError):
            return {}

    def serves(self) -> str:
        """Digest of the release that answers a prediction now; empty where none does."""
        try:
            with AgentClient(self.folder / "agent.sock") as client:
                version = client.predict(tiny_rows(1)[0])[0].version
        except (Unavailable, OSError):
            return ""
        refs = (self.stage.old, self.stage.new, self.stage.newer)
        return next((ref.digest for ref in refs if ref.version == version), version)

    def reported(self) -> ReportedState | None:
        """What it told the fleet last, since this start."""
        self.fleet.pump()
        return self.fleet.reported.get(self.name)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
        """Wait; a fault where it takes too long, or where the agent ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.agent.running() or time.monotonic() > deadline:
                how = "gave up waiting" if self.agent.running() else "the agent ended"
                raise Fault(f"{how} for {what}; {self._account()}")
            self.fleet.pump(0.005)

    def served_by(self, refs: Collection[ReleaseRef]) -> None:
        """Wait until one of these releases answers."""
        digests = {ref.digest for ref in refs}
        self.until(lambda: self.serves() in digests, "service")

    def committed(self, ref: ReleaseRef) -> None:
        """Wait until it says that it committed to this release."""

        def reached() -> bool:
            said = self.reported()
            return said is not None and said.update == "committed" and said.active == ref

        self.until(reached, f"{ref.version} committed")

    def holds(self, ref: ReleaseRef) -> bool:
        """Whether it says that it committed to this release, or will by itself."""
        self.until(lambda: self.reported() is not None, "a report")
        said = self.reported()
        assert said is not None
        return said.update not in RESTING or (said.update == "committed" and said.active == ref)

    def rests_or_gives_up(self, ref: ReleaseRef) -> None:
        """Wait until the newest wish was fulfilled by this release, or given up with a reason."""

        def ended() -> bool:
            said = self.reported()
            if said is None or said.desired_revision != self.revision:
                return False
            if said.update == "failed" and not said.reason:
                raise Fault("it failed and gives no reason")
            return said.update == "failed" or (said.update == "committed" and said.active == ref)

        self.until(ended, "an end of the update")

    def rests(self) -> None:
        """Wait until it says that nothing is under way."""

        def resting() -> bool:
            said = self.reported()
            return said is not None and said.update in RESTING

        self.until(resting, "an end of the update")

    def truthful(self) -> ReportedState:
        """Wait until all accounts agree: answers, status, report, journal, pointer and slots."""
        self.until(lambda: not self.lies(), "a truthful report")
        said = self.reported()
        assert said is not None
        return said

    def lies(self) -> list[str]:
        """What is said and is not so; an update that is under way is left alone."""
        said, status, serves = self.reported(), self.status(), self.serves()
        if said is None:
            return ["nothing was reported"]
        pointer, journal = Slots(self.state).pointer(), Journal(self.state).read()
        active = said.active.digest if said.active else ""
        revision = journal.desired.revision if journal.desired else 0
        previous = said.previous.digest if said.previous else None
        pairs = [
            ("answers come from", serves, "reported is", active),
            ("status says", status.get("digest") or "", "reported is", active),
            ("status update", status.get("update"), "reported", said.update),
            ("journal state", journal.state, "reported", said.update),
            ("journal reason", journal.reason, "reported", said.reason),
            ("journal revision", revision, "reported", said.desired_revision),
            ("journal refusals", journal.refusals, "reported", said.refusals),
            ("pointer active", pointer.active if pointer else None, "reported", active or None),
            ("pointer previous", pointer.previous if pointer else None, "reported", previous),
        ]
        found = [f"{a} {b!r}, {c} {d!r}" for a, b, c, d in pairs if b != d]
        if said.update == "committed" and (
            journal.desired is None or journal.desired.active != said.active
        ):
            found.append("committed to another release than the wished one")
        for digest in filter(None, (active, previous)):
            try:
                check_slot(self.state / "slots" / digest, digest, TARGET)
            except (InvalidBundle, SerinusError, OSError) as error:
                found.append(f"slot {digest[:8]}: {error}")
        return found

    def tidy(self, *refs: ReleaseRef) -> None:
        """Nothing is left behind: only these slots, no temporary file, nothing half fetched."""

        def left() -> list[str]:
            there = {path.name for path in (self.state / "slots").iterdir()}
            found = sorted(there - {ref.digest for ref in refs})
            found += [str(path) for path in self.state.rglob("*.tmp") if path.is_file()]
            targets = self.state / "tuf" / "targets"
            return found + [str(path) for path in targets.rglob("*") if path.is_file()]

        self.until(lambda: not left(), "a tidy state folder")

    def holds_only(self, *refs: ReleaseRef) -> None:
        """No other slot, and nothing half fetched, is left; of these not more than two."""

        def there() -> list[str]:
            return sorted(path.name for path in (self.state / "slots").iterdir())

        known = {ref.digest for ref in refs}
        self.until(lambda: set(there()) <= known and len(there()) <= 2, f"few slots: {there()}")

    def _account(self) -> str:
        log = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        said = self.fleet.reported.get(self.name)
        try:
            entry = msgspec.json.encode(Journal(self.state).read()).decode()
        except OSError as error:
            entry = str(error)
        lies = "; ".join(self.lies()) if said else "nothing was reported"
        return (
            f"status {self.status().get('update')}; reported {said.update if said else None} "
            f"({said.reason if said else ''}); journal {entry[:400]}; {lies}; "
            f"log: {' | '.join(log[-6:])}"
        )


def copied(source: Path, target: Path) -> None:
    """Put the state folder back to what it was."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
