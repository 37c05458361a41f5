"""A device that answers requests, a real server and broker: every sample agrees, over a restart."""

from pathlib import Path

import numpy as np

from edge_agent.client import AgentClient
from edge_agent.update.journal import Entry, Journal
from edge_core.bundle import folder as folders
from edge_core.errors import Unavailable
from edge_core.messages.deployment import DesiredState
from tests.scenarios.line import Line, Scale
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.tiny_bundle import TARGET
from tests.simulators.tiny_requests import Story, story, tiny_requests

AGENT = """
device = "depot-1"
target = "{target}"
state_dir = "{folder}/state"
[repository]
url = "{url}/repository"
trusted_root = "{root}"
[mqtt]
host = "127.0.0.1"
port = {mqtt_port}
[serving]
socket = "{folder}/agent.sock"
[telemetry]
window_seconds = 0.5
sample_every = 1
[update]
probation_seconds = 0.2
probation_rows = 0
"""


def tell(path: Path, told: Story, requests: range) -> None:
    """Some requests of a log, one by one, and the events that came before each."""
    arrived = np.asarray(told.events.arrived_us)
    asked = np.asarray(told.request["at"])
    before = 0 if not requests.start else int(asked[requests.start - 1]) + 1
    with AgentClient(path) as client:
        for place in requests:
            now = int(asked[place])
            came = np.flatnonzero((arrived >= before) & (arrived <= now))
            if len(came):
                some = told.events.only(came)
                client.observe("parcels", some[0], some[1], some.fields, some.arrived_us)
            client.ask({name: [list(part)[place]] for name, part in told.request.items()})
            before = now + 1


def serves(path: Path) -> bool:
    try:
        with AgentClient(path) as client:
            return client.status()["active"] == "tiny-parcels@1.0.0"
    except (Unavailable, OSError):
        return False


def test_samples_of_requests_agree_at_the_server(tmp_path: Path) -> None:
    told = story(150, 40)
    with Line(tmp_path / "line", Scale()) as line:
        line.start_server()
        bundle = tiny_requests(
            line.folder / "bundles" / "1.0.0", sign_with=line.keys / "statement.pem"
        )
        line.publish(bundle)
        folder = tmp_path / "depot"
        (folder / "state").mkdir(parents=True)
        desired = DesiredState(revision=1, issued_ms=0, active=folders.ref(bundle))
        Journal(folder / "state").write(Entry(state="downloading", desired=desired))
        config = folder / "agent.toml"
        config.write_text(
            AGENT.format(
                target=TARGET,
                folder=folder,
                url=line.url,
                root=line.repository / "metadata" / "1.root.json",
                mqtt_port=line.mqtt_port,
            )
        )
        agent = Process(
            [*command("serinus-agent"), "run", "--config", str(config)], folder / "agent.log"
        )

        def parity() -> dict[str, object]:
            (release,) = line.client().releases()
            found: dict[str, object] = release["parity"]
            return found

        for requests in (range(20), range(20, 40)):
            with agent:
                wait_for(
                    lambda: serves(folder / "agent.sock"), seconds=30, what="a release that serves"
                )
                tell(folder / "agent.sock", told, requests)
                wait_for(
                    lambda requests=requests: parity()["compared"] == requests.stop,
                    seconds=30,
                    what="every sample at the server",
                )
        agree = {"compared": 40, "mismatches": 0, "features": {}}
        assert parity() == agree | {"not_possible": 0, "redacted": []}
        (spent,) = line.client().cost()
        assert spent["predictions"] == 40
        assert spent["cpu_us_per_prediction"] > 0
        assert spent["bytes_per_device_hour"] > 0
        fleet = line.client().fleet()
        assert (fleet["parity_compared"], fleet["parity_mismatches"]) == (40, 0)
        assert (fleet["predictions"], fleet["rejected"]) == (40, 0)
