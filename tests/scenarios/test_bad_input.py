"""What each command says of bad input: one line with the thing and the fix, and nothing lost."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters import signing
from edge_core.bundle import archive
from edge_core.bundle.archive import MAX_ARCHIVE_BYTES
from tests.scenarios.line import RECIPE
from tests.simulators.processes import command, free_port
from tests.simulators.tiny_bundle import tiny_bundle

WRONG_USE, BAD_INPUT = 1, 2

AGENT = """
device = "watch-1"
target = "cpu-x86_64-ort"
state_dir = "state"
[serving]
socket = "agent.sock"
rest_port = {port}
[sideload]
keys = ["{keys}/statement.pub.pem"]
"""
FLEET = """
[repository]
url = "http://127.0.0.1:9/repository"
trusted_root = "{root}"
[mqtt]
host = "127.0.0.1"
port = 9
"""


@pytest.fixture(scope="module")
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, busy_port: int) -> Path:
    """Good and bad files beside one another."""
    here = tmp_path_factory.mktemp("bad")
    key = signing.generate_key(here / "keys")
    signing.generate_key(here / "foreign")
    bundle = tiny_bundle(here / "bundle", sign_with=key)
    archive.pack(bundle, here / "whole.tar")
    (here / "truncated.tar").write_bytes((here / "whole.tar").read_bytes()[:5000])
    (here / "oversized.tar").touch()
    os.truncate(here / "oversized.tar", MAX_ARCHIVE_BYTES + 1)
    shutil.copytree(bundle, here / "altered")
    with (here / "altered" / "card.md").open("a") as card:
        card.write("more")
    shutil.copytree(bundle, here / "newer")
    manifest = (bundle / "manifest.json").read_text()
    newer = manifest.replace('"schema_version": 3', '"schema_version": 9')
    assert newer != manifest
    (here / "newer" / "manifest.json").write_text(newer)
    for name, line in (("unknown-key", "epochz = 1"), ("unknown-target", 'targets = ["toaster"]')):
        shutil.copytree(RECIPE, here / name)
        recipe = (here / name / "recipe.toml").read_text()
        if name == "unknown-target":
            recipe = re.sub(r"targets = \[.*?\]", "", recipe, flags=re.DOTALL)
        (here / name / "recipe.toml").write_text(f"{line}\n{recipe}")
    shutil.copytree(RECIPE, here / "unknown-setting")
    with (here / "unknown-setting" / "releases" / "1.2.0.toml").open("a") as release:
        release.write("epochz = 1\n")
    agent = AGENT.format(port=0, keys="keys")
    (here / "agent.toml").write_text(agent)
    (here / "foreign.toml").write_text(AGENT.format(port=0, keys="foreign"))
    (here / "not-a-key.toml").write_text(agent.replace("keys/statement.pub", "keys/statement"))
    (here / "unknown-key.toml").write_text("colour = 1\n" + agent)
    (here / "no-root.toml").write_text(agent + FLEET.format(root="nothing.json"))
    (here / "root.json").write_text("{}")
    (here / "bad-root.toml").write_text(agent + FLEET.format(root="root.json"))
    (here / "server-key.toml").write_text("prot = 1\n")
    (here / "server-port.toml").write_text(f"port = {busy_port}\n")
    (here / "mqtt-port.toml").write_text(f"port = {free_port()}\n[mqtt]\nport = {busy_port}\n")
    (here / "server-folder.toml").write_text('data_dir = "root.json"\n')
    (here / "plan.json").write_text("{")
    return here


CASES = [
    ("serinus-convert build nowhere --out x", BAD_INPUT, "no recipe at nowhere: name a folder"),
    ("serinus-convert build unknown-key --out x", BAD_INPUT, "unknown field `epochz`"),
    ("serinus-convert build unknown-target --out x", BAD_INPUT, "unknown target toaster; known"),
    ("serinus-convert build unknown-setting --out x --release 1.2.0", BAD_INPUT, "setting epochz"),
    ("serinus-convert build unknown-key --release 7.7.7 --out x", BAD_INPUT, "it has: 1.0.0"),
    ("serinus-convert build unknown-key --out bundle", WRONG_USE, "bundle exists already: name"),
    ("serinus-convert build unknown-key --out x --waive a=b", WRONG_USE, "needs a reason"),
    ("serinus-convert build", WRONG_USE, "Missing argument"),
    ("serinus-convert verify nowhere --key keys/statement.pub.pem", BAD_INPUT, "no bundle at"),
    ("serinus-convert verify truncated.tar --key keys/statement.pub.pem", BAD_INPUT, "truncated"),
    ("serinus-convert verify oversized.tar --key keys/statement.pub.pem", BAD_INPUT, "limit is"),
    ("serinus-convert verify altered --key keys/statement.pub.pem", BAD_INPUT, "card.md"),
    ("serinus-convert verify bundle --key foreign/statement.pub.pem", BAD_INPUT, "foreign"),
    ("serinus-convert verify bundle --key keys/statement.pem", BAD_INPUT, "keys/statement.pem is"),
    ("serinus-convert inspect newer", BAD_INPUT, "schema version 9; this Serinus reads 1 to 4"),
    ("serinus-convert keygen keys", BAD_INPUT, "exists already; name another folder"),
    ("serinus-convert publish bundle --repository x --keys keys", BAD_INPUT, "x"),
    ("serinus-agent run --config nowhere.toml", BAD_INPUT, "settings file nowhere.toml"),
    ("serinus-agent run --config unknown-key.toml", BAD_INPUT, "unknown key 'colour'; known are"),
    ("serinus-agent run --config agent.toml", BAD_INPUT, "needs [repository] and [mqtt]"),
    ("serinus-agent run --config no-root.toml", BAD_INPUT, "trusted_root"),
    ("serinus-agent run --config bad-root.toml", BAD_INPUT, "is not a TUF root"),
    ("serinus-agent install truncated.tar --config agent.toml", BAD_INPUT, "truncated.tar is not"),
    ("serinus-agent install oversized.tar --config agent.toml", BAD_INPUT, "the limit is"),
    ("serinus-agent install altered --config agent.toml", BAD_INPUT, "card.md has more"),
    ("serinus-agent install newer --config agent.toml", BAD_INPUT, "manifest.json is not the one"),
    ("serinus-agent install bundle --config foreign.toml", BAD_INPUT, "none of the 1 trusted keys"),
    ("serinus-agent install bundle --config not-a-key.toml", BAD_INPUT, "not a PEM public key"),
    ("serinus-agent status --config agent.toml", BAD_INPUT, "start it with"),
    ("serinus-agent serve altered --socket s", BAD_INPUT, "card.md has more"),
    ("serinus-agent serve bundle --socket s --target toaster", BAD_INPUT, "it has cpu-x86_64-ort"),
    ("serinus-agent dance", WRONG_USE, "invalid choice: 'dance'"),
    ("serinus-server run --config nowhere.toml", BAD_INPUT, "no settings file nowhere.toml"),
    ("serinus-server run --config server-key.toml", BAD_INPUT, "unknown field `prot`"),
    ("serinus-server run --config server-port.toml", BAD_INPUT, "set port to a free one"),
    ("serinus-server run --config mqtt-port.toml", BAD_INPUT, "set mqtt.port to a free one"),
    ("serinus-server run --config server-folder.toml", BAD_INPUT, "name another with data_dir"),
    ("serinus --url http://127.0.0.1:9 devices", BAD_INPUT, "start one with 'serinus-server run'"),
    ("serinus --token-file nothing devices", BAD_INPUT, "token file nothing"),
    ("serinus rollout start m@1.0.0 --plan plan.json", BAD_INPUT, "plan.json is not valid JSON"),
]


@pytest.mark.parametrize(("line", "code", "said"), CASES, ids=[line for line, _, _ in CASES])
def test_one_line_names_the_thing_and_the_fix(
    folder: Path, line: str, code: int, said: str
) -> None:
    before = {path for path in folder.iterdir() if "serinus-data" not in path.name}
    name, *arguments = line.split()
    done = subprocess.run(
        [*command(name), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(RECIPE.parent.parent), "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{name}: ")
    assert said in last
    assert "Traceback" not in done.stdout + done.stderr
    left = {path for path in folder.iterdir() if "serinus-data" not in path.name}
    assert left - before <= {folder / "state"}


def test_what_was_refused_left_nothing_to_serve(folder: Path) -> None:
    """Runs after the table above: the agent's state folder was offered bad bundles only."""
    slots = folder / "state" / "slots"
    assert not slots.exists() or not any(slots.iterdir())
    done = subprocess.run(
        [*command("serinus-agent"), "install", "whole.tar", "--config", "agent.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(RECIPE.parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert "installed tiny-motion@1.0.0" in done.stdout
    assert len(list(slots.iterdir())) == 1
