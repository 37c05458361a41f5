"""The whole line in one folder: keys, release repository, server, broker, devices, applications.

Everything here is a real process started the way a person would start it; nothing decides.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from edge_core.release import ReleaseRef
from fleet_client.client import FleetClient
from tests.simulators.attacker import ForeignList
from tests.simulators.processes import Process, command, free_port, wait_for
from tests.simulators.watch_fleet import Counts, ReplayPlan, Wearer

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "firmware_bundles" / "watch_activity"
MODEL = "watch-activity"
TARGETS = "cpu-x86_64-ort,cpu-x86_64-tflite"


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How large and how fast a run is."""

    subjects: tuple[int, ...] = (6, 7, 8, 9, 10)
    sides: tuple[str, ...] = ("left", "right")
    copies: int = 2
    speed: float = 20.0
    label_delay_seconds: float = 1.0
    window_seconds: float = 2.0

    @property
    def wearers(self) -> list[tuple[int, str, int]]:
        """(subject, side, copy) of each device."""
        return [
            (subject, side, copy)
            for subject in self.subjects
            for side in self.sides
            for copy in range(self.copies)
        ]


class Refused(Exception):
    """A command ended with an exit code other than 0."""

    def __init__(self, code: int, output: str) -> None:
        super().__init__(f"exit {code}: {output[-600:]}")
        self.code = code
        self.output = output


def run(name: str, *arguments: str | Path) -> str:
    """Run one of our commands to its end and return what it printed."""
    done = subprocess.run(
        [*command(name), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(done.returncode, done.stdout)
    return done.stdout


class Line:
    """Keys, repository, server, devices and applications below one folder."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self.keys = folder / "keys"
        self.data = folder / "server"
        self.repository = self.data / "repository"
        self.port = free_port()
        self.mqtt_port = free_port()
        self.server = Process(
            [*command("serinus-server"), "run", "--config", str(folder / "server.toml")],
            folder / "server.log",
        )
        self.agents: dict[str, Process] = {}
        self.applications: Process | None = None
        self._stack = contextlib.ExitStack()
        self._client: FleetClient | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def turned_file(self) -> Path:
        """While it exists, every sensor is upside down."""
        return self.folder / "sensors-turned"

    def __enter__(self) -> Self:
        """Lay out the folder, make the keys and the repository."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.data.mkdir(parents=True)
        # Whoever has this folder has every key: a first look, not how a fleet is kept.
        run("serinus-convert", "keygen", self.keys, "--no-passphrase")
        run(
            "serinus-convert",
            "init-repository",
            "--repository",
            self.repository,
            "--keys",
            self.keys,
            "--no-passphrase",
        )
        shutil.copytree(self.keys / "online", self.data / "online", dirs_exist_ok=True)
        (self.folder / "server.toml").write_text(
            f'data_dir = "{self.data}"\nport = {self.port}\n'
            f"[mqtt]\nport = {self.mqtt_port}\n"
            "[windows]\ndecide_every_seconds = 1\ndrift_period_seconds = 3\n"
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything that runs."""
        self._stack.close()

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self._stack.enter_context(self.server)
        self.wait_for_server()

    def wait_for_server(self) -> None:
        """Wait until the server answers requests."""
        self.server.wait_for_text(self.url, seconds=30)
        wait_for(self._answers, seconds=30, what="the server to answer")

    def _answers(self) -> bool:
        try:
            self.client().fleet()
        except Exception:
            if not self.server.running:
                raise
            return False
        return True

    def client(self) -> FleetClient:
        """Return an operator's client with the token that the server wrote."""
        if self._client is None:
            token = (self.data / "operator.token").read_text().strip()
            self._client = self._stack.enter_context(FleetClient(self.url, token))
        return self._client

    def start_devices(self) -> None:
        """Start one agent process for each wearer, and the applications that use them."""
        wearers = []
        for subject, side, copy in self.scale.wearers:
            device = f"watch-{subject:02d}-{side}-{'abcdefgh'[copy]}"
            process = Process(
                [*command("serinus-agent"), "run", "--config", str(self._agent_config(device))],
                self.folder / device / "agent.log",
            )
            self.agents[device] = self._stack.enter_context(process)
            wearers.append(
                Wearer(
                    device=device,
                    socket=str(self.folder / device / "agent.sock"),
                    subject=subject,
                    side=side,
                    offset=3 * copy,
                )
            )
        plan = ReplayPlan(
            wearers=wearers,
            speed=self.scale.speed,
            label_delay_seconds=self.scale.label_delay_seconds,
            turned_file=str(self.turned_file),
            counts_file=str(self.folder / "applications.json"),
        )
        path = self.folder / "applications-plan.json"
        path.write_bytes(msgspec.json.encode(plan))
        self.applications = self._stack.enter_context(
            Process(
                [command("serinus")[0], "-m", "tests.simulators.watch_fleet", str(path)],
                self.folder / "applications.log",
            )
        )

    def _agent_config(self, device: str) -> Path:
        side = device.split("-")[2]
        folder = self.folder / device
        folder.mkdir()
        path = folder / "agent.toml"
        path.write_text(
            f'device = "{device}"\ntarget = "cpu-x86_64-ort"\nstate_dir = "{folder / "state"}"\n'
            f'slices = {{ side = "{side}" }}\n'
            f'[repository]\nurl = "{self.url}/repository"\n'
            f'trusted_root = "{self.repository / "metadata" / "1.root.json"}"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {self.mqtt_port}\n'
            f'[serving]\nsocket = "{folder / "agent.sock"}"\n'
            f"[telemetry]\nwindow_seconds = {self.scale.window_seconds}\nsample_every = 50\n"
            "[update]\nprobation_seconds = 3\nprobation_rows = 5\n"
        )
        return path

    def counts(self) -> Counts:
        """What the applications saw so far."""
        path = self.folder / "applications.json"
        return msgspec.json.decode(path.read_bytes(), type=Counts) if path.exists() else Counts()

    def build(self, version: str, *options: str | Path) -> Path:
        """Build and sign one release of the watch model; raise :class:`Refused`."""
        bundle = self.folder / "bundles" / version
        bundle.parent.mkdir(exist_ok=True)
        run(
            "serinus-convert",
            "build",
            RECIPE,
            "--release",
            version,
            "--targets",
            TARGETS,
            "--out",
            bundle,
            "--key",
            self.keys / "statement.pem",
            *options,
        )
        return bundle

    def publish(self, bundle: Path) -> None:
        """List a bundle as approved; wait until the server has seen it."""
        run(
            "serinus-convert",
            "publish",
            bundle,
            "--repository",
            self.repository,
            "--keys",
            self.keys,
        )
        wait_for(
            lambda: any(r["version"] == bundle.name for r in self.client().releases()),
            seconds=20,
            what=f"the server to list {bundle.name}",
        )

    @contextlib.contextmanager
    def altered(self, version: str) -> Iterator[None]:
        """Flip one byte of a published model file for as long as the context lasts."""
        folder = self.repository / "targets" / MODEL / version
        model = next(folder.rglob("*.model.onnx"))
        before = model.read_bytes()
        model.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
        try:
            yield
        finally:
            model.write_bytes(before)

    @contextlib.contextmanager
    def foreign_list(self, version: str) -> Iterator[ReleaseRef]:
        """Play whoever took over the server: a list of their own, and orders to every device.

        They hold the server's snapshot and timestamp keys, but not the releases key.
        """
        attack = ForeignList(self.repository, self.data / "online")
        ref = ReleaseRef(model=MODEL, version=version, digest="6" * 64)
        with attack.listed(ref):
            attack.order(sorted(self.agents), ref, self.mqtt_port)
            yield ref
