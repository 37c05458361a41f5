"""What every fault happens on: a release repository, a broker, and a device with one release."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from converters.signing import PUBLIC_KEY
from edge_core.release import ReleaseRef
from fleet_server.broker.process import PLACES
from tests.faults.forks import Fork
from tests.simulators.processes import free_port, wait_for
from tests.simulators.repository import RepositorySimulator

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
user {user}
persistence false
max_inflight_messages 200
max_queued_messages 200000
"""
SEEDS = {"1.0.0": 0, "1.1.0": 1, "1.2.0": 2}


class Stage:
    """Processes that all points share, and the folder below which everything lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._children: list[Fork] = []
        self._publish()
        self.mqtt_port = free_port()
        self._broker = self._start_broker()

    def _publish(self) -> None:
        """Sign and serve in a child: this process stays without threads, for the forks."""
        ready = self.folder / "published.json"
        self._children.append(Fork(self._serve, self.folder / "repository.log"))
        deadline = time.monotonic() + 60
        while not ready.exists():
            if not self._children[0].running() or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "repository.log").read_text())
            time.sleep(0.02)
        said = json.loads(ready.read_text())
        self.url: str = said["url"]
        self.root = self.folder / "root.json"
        self.repository = self.folder / "source" / "repository"
        self.bundles = self.folder / "source" / "bundles"
        self.key = Path(said["key"])
        self.old, self.new, self.newer = (
            ReleaseRef(**said["releases"][version]) for version in SEEDS
        )

    def _serve(self) -> None:
        with RepositorySimulator(self.folder / "source") as source:
            refs = {version: source.publish(version, seed=seed) for version, seed in SEEDS.items()}
            (self.folder / "root.json").write_bytes(source.root)
            said = {
                "url": source.url,
                "key": str(source.statement_key.with_name(PUBLIC_KEY)),
                "releases": {
                    version: {"model": ref.model, "version": ref.version, "digest": ref.digest}
                    for version, ref in refs.items()
                },
            }
            temporary = self.folder / "published.tmp"
            temporary.write_text(json.dumps(said))
            temporary.replace(self.folder / "published.json")
            signal.pause()

    def _start_broker(self) -> subprocess.Popen[bytes]:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path=":".join(PLACES))
        if program is None:
            raise RuntimeError("the fault tests need mosquitto: apt-get install mosquitto")
        settings = self.folder / "mosquitto.conf"
        user = "root" if os.getuid() == 0 else ""
        text = MOSQUITTO.format(port=self.mqtt_port, user=user)
        settings.write_text(text if user else text.replace("user \n", ""))
        with (self.folder / "mosquitto.log").open("ab") as log:
            broker = subprocess.Popen([program, "-c", str(settings)], stdout=log, stderr=log)
        wait_for(self._broker_listens, seconds=20, what="the broker")
        return broker

    def _broker_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.mqtt_port)) == 0

    def close(self) -> None:
        """End what was started."""
        for child in self._children:
            child.kill()
        self._broker.kill()
        self._broker.wait()
