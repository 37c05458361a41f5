"""A key in a PKCS#11 module, here SoftHSM's: it vouches for the device and cannot be read."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.simulators.softhsm import MODULE, NEEDS_SOFTHSM, PIN, new_token

USE = """
import sys
from pathlib import Path
from edge_agent.identity.hardware import HardwareKey
from edge_core.errors import SerinusError
module, token, pin, out = sys.argv[1:]
try:
    key = HardwareKey(Path(module), token, Path(pin), "serinus")
    Path(out + ".pem").write_text(key.public_pem)
    Path(out + ".sig").write_bytes(key.sign(b"statement"))
except SerinusError as error:
    sys.exit(str(error))
"""

pytestmark = NEEDS_SOFTHSM


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return new_token(tmp_path)


def use(
    environment: dict[str, str],
    folder: Path,
    *,
    module: str = str(MODULE),
    token: str = "device",
    pin: str = "pin",
    out: str = "first",
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a module is loaded once, with the token's folder as it is then."""
    arguments = [module, token, str(folder / pin), str(folder / out)]
    return subprocess.run(
        [sys.executable, "-c", USE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_made_once_and_signs(environment: dict[str, str], tmp_path: Path) -> None:
    for out in ("first", "second"):
        done = use(environment, tmp_path, out=out)
        assert done.returncode == 0, done.stderr
    first, second = (tmp_path / f"{out}.pem" for out in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    public = load_pem_public_key(first.read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for out in ("first", "second"):
        public.verify(
            (tmp_path / f"{out}.sig").read_bytes(), b"statement", ec.ECDSA(hashes.SHA256())
        )
    listed = subprocess.run(
        ["pkcs11-tool", "--module", str(MODULE), "--login", "--pin", PIN, "--list-objects"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.count("Private Key Object") == 1
    assert "never extractable" in listed


def test_what_is_wrong_is_one_clear_line(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("9999")
    for changes, said in (
        ({"pin": "other"}, "the PIN in"),
        ({"pin": "nothing"}, "cannot read [identity] pkcs11_pin_file"),
        ({"token": "nothing"}, "has no token 'nothing'"),
        ({"module": str(tmp_path / "no.so")}, "fails"),
    ):
        done = use(environment, tmp_path, **changes)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert said in line
        assert "9999" not in line
