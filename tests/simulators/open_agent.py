"""An agent as a real process that serves one side-loaded bundle over HTTP and gRPC."""

import contextlib
import http.client
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from converters import signing
from tests.simulators.processes import Process, command, free_port, wait_for
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET

SETTINGS = """
device = "watch-1"
target = "{target}"
state_dir = "state"
slices = {{ side = "left" }}
[serving]
socket = "agent.sock"
rest_port = {rest}
grpc_port = {grpc}
[sideload]
keys = ["keys/statement.pub.pem"]
[repository]
url = "http://127.0.0.1:9/repository"
trusted_root = "root.json"
[mqtt]
host = "127.0.0.1"
port = 9
"""


class OpenAgent(NamedTuple):
    """Where it serves."""

    rest: int
    grpc: int
    socket: Path
    process: Process


@contextlib.contextmanager
def open_agent(folder: Path, make: Callable[..., Path]) -> Iterator[OpenAgent]:
    """Run an agent on a bundle that ``make(folder, sign_with=key)`` writes."""
    key = signing.generate_key(folder / "keys")
    bundle = make(folder / "bundle", sign_with=key)
    with RepositorySimulator(folder / "source") as source:
        (folder / "root.json").write_bytes(source.root)
    config = folder / "agent.toml"
    rest, grpc = free_port(), free_port()
    config.write_text(SETTINGS.format(target=TARGET, rest=rest, grpc=grpc))
    install = [*command("serinus-agent"), "install", str(bundle), "--config", str(config)]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    run = [*command("serinus-agent"), "run", "--config", str(config)]
    with Process(run, folder / "agent.log") as process:
        wait_for(lambda: answers(rest, "/readyz"), seconds=30, what="an agent that is ready")
        yield OpenAgent(rest, grpc, folder / "agent.sock", process)
    assert "Traceback" not in process.text()


def answers(port: int, path: str) -> bool:
    """Whether a path answers with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
