"""A PKCS#11 module without hardware: SoftHSM, with tokens of a test's own."""

import os
import subprocess
from pathlib import Path

import pytest

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
MODULE = next((path for path in MODULES if Path(path).exists()), None)
PIN = "1234"
NEEDS_SOFTHSM = pytest.mark.skipif(
    MODULE is None and "CI_REQUIRES_SOFTHSM" not in os.environ,
    reason="SoftHSM is absent: install softhsm2",
)


def new_token(folder: Path) -> dict[str, str]:
    """Make a token ``device`` below a folder, its PIN in ``pin``; returns the environment."""
    assert MODULE is not None, "SoftHSM is absent: install softhsm2"
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    found = os.environ | {"SOFTHSM2_CONF": str(conf)}
    make = ["softhsm2-util", "--init-token", "--free", "--label", "device"]
    subprocess.run(
        [*make, "--pin", PIN, "--so-pin", "5678"], env=found, check=True, capture_output=True
    )
    (folder / "pin").write_text(f"{PIN}\n")
    return found
