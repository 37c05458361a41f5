"""A device of a running server with TLS, and the command that enrols it."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.simulators.lone_device import Device
from tests.simulators.processes import command
from tests.simulators.server import FleetServer

NAME = "watch-1"
IDENTITY = """
[identity]
server = "{server}"
ca_file = "{ca_file}"
"""


def device_of(server: FleetServer, folder: Path, name: str = NAME) -> Device:
    """Lay out a device's folder; it is not enrolled yet."""
    root = (server.repository / "metadata" / "1.root.json").read_bytes()
    source: Any = SimpleNamespace(url=f"{server.url}/repository", root=root)
    found = Device(folder, source)
    ca_file = found.folder / "fleet-ca.pem"
    ca_file.write_bytes(server.client.authority())
    text = found.config.read_text().replace("port = 9", f"port = {server.mqtt_port}")
    text = text.replace(f'"{NAME}"', f'"{name}"')
    text = text.replace("[mqtt]", f'ca_file = "{ca_file}"\n[mqtt]')
    found.config.write_text(text + IDENTITY.format(server=server.url, ca_file=ca_file))
    return found


def agent(device: Device, *arguments: str | Path) -> tuple[int, str]:
    """Run a command of the agent; its exit code and what it says."""
    done = subprocess.run(
        [*command("serinus-agent"), *map(str, arguments), "--config", str(device.config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def token_file(server: FleetServer, device: Device, name: str = NAME, **options: Any) -> Path:
    """Have a token made that enrols the device; returns its file."""
    path = device.folder / "token"
    path.write_text(server.client.create_enrol_token(name, **options) + "\n")
    return path
