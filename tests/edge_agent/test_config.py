import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import config
from edge_core.errors import InvalidConfiguration

IDENTITY = "[identity]\nserver = 'https://fleet.example'\nca_file = 'ca.pem'\n"
MINIMAL = """
device = "watch-1"
target = "cpu-x86_64-ort"
state_dir = "state"
[serving]
socket = "agent.sock"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_gets_every_default(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, MINIMAL))
    assert loaded.state_dir == tmp_path / "state"
    assert loaded.serving.socket == tmp_path / "agent.sock"
    assert loaded.telemetry.window_seconds == 60
    assert loaded.memory.store_seconds == 60


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (MINIMAL + "scoket = 'x'", ["scoket", "[serving]", "socket, rest_port"]),
        ("colour = 1" + MINIMAL, ["colour", "device, target"]),
        (MINIMAL + "rest_port = 99999", ["rest_port", "65535"]),
        (MINIMAL.replace("watch-1", "a b/c"), ["a b/c"]),
        (MINIMAL.replace("cpu-x86_64-ort", "t" * 65), ["target", "64"]),
        (MINIMAL.replace("cpu-x86_64-ort", ""), ["target", "1"]),
        ("slices.side = '" + "s" * 65 + "'" + MINIMAL, ["slices", "64"]),
        ("slices.side = ''" + MINIMAL, ["slices", "1"]),
        (MINIMAL + "[mqtt]\nhost = 'h'", ["[repository]", "[mqtt]"]),
        (MINIMAL + IDENTITY.replace("https", "http"), ["identity.server", "https://"]),
        (MINIMAL + IDENTITY + "pkcs11_module = 'm.so'", ["pkcs11_token", "go together"]),
        (MINIMAL + IDENTITY.replace("ca_file = 'ca.pem'", ""), ["ca_file"]),
        (MINIMAL + "[memory]\nstore_seconds = -1", ["memory.store_seconds", ">= 0"]),
        (MINIMAL + "[memory]\nmax_bytes = 10", ["memory.max_bytes", "4096"]),
        (MINIMAL + "[memory]\nkeep = 1", ["keep", "[memory]", "store_seconds"]),
        ("device = ", ["Invalid value"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, names: list[str]) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        config.load(write(tmp_path, text))
    message = str(refused.value)
    assert "\n" not in message
    for name in ["agent.toml", *names]:
        assert name in message


@pytest.mark.parametrize("arguments", [["run", "--config", "missing.toml"], ["run"], ["fly"]])
def test_the_command_ends_with_one_line_and_no_traceback(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("serinus-agent")
