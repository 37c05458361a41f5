"""The public verifier of OpenSSF model signing in an environment of its own; people with keys."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulators.ceremony import Team

PEERS = Path(__file__).parents[2] / "build" / "peers"
# Our own constraints cannot hold here: this verifier and torch's exporters want other versions
# of the same packages. It needs pyOpenSSL and does not say so.
PINS = (
    "model-signing==1.1.1",
    "pyOpenSSL==26.4.0",
    "cryptography==50.0.2",
    "in-toto-attestation==0.9.3",
    "protobuf==7.36.2",
    "sigstore==4.5.1",
    "sigstore-models==0.0.6",
)


@pytest.fixture(scope="session")
def model_signing() -> Path:
    """The ``model_signing`` command; the first run installs it."""
    folder = PEERS / "model-signing"
    stamp = folder / ".installed"
    wanted = "\n".join((sys.version, *PINS))
    PEERS.mkdir(parents=True, exist_ok=True)
    with (PEERS / "model-signing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(folder))
            pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
            _run(*pip, "install", "--quiet", *PINS)
            # Last, so that an interrupted installation starts afresh.
            stamp.write_text(wanted)
    return folder / "bin" / "model_signing"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"cannot install the public verifier: {done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a team after its first ceremony; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("team") / "begun"
    folder.mkdir()
    Team(folder).begin()
    return folder


@pytest.fixture
def team(begun: Path, tmp_path: Path) -> Team:
    """A team after its first ceremony."""
    shutil.copytree(begun, tmp_path / "team")
    return Team(tmp_path / "team")
