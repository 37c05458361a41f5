"""A PKCS#11 token in a folder: SoftHSM, with its command line tools and module."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
PIN = "271828"
LABEL = "release team"
EACH = """
import json, sys; from converters import cli
for arguments in json.loads(sys.argv[1]):
    if code := cli.run(arguments):
        sys.exit(code)
"""


class SoftToken:
    """One initialised token; commands that use it run in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.module = _needed()
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        (folder / "tokens").mkdir()
        settings = folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        self.environment = {
            **os.environ,
            "SOFTHSM2_CONF": str(settings),
            "SERINUS_PKCS11_MODULE": self.module,
            "COLUMNS": "200",
        }
        self.run("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN,
                 "--so-pin", "314159")  # fmt: skip

    def make(self, name: str, kind: str = "EC:prime256v1", number: str = "01") -> str:
        """Make a key pair on the token; returns its URI without the PIN."""
        self.run(
            "pkcs11-tool", "--module", self.module, "--token-label", LABEL, "--login", "--pin", PIN,
            "--keypairgen", "--key-type", kind, "--label", name, "--id", number,
        )  # fmt: skip
        return f"pkcs11:token={LABEL.replace(' ', '%20')};object={name}"

    def converted(self, *commands: list[object]) -> str:
        """Run ``serinus-convert`` commands, one after the other, in one process; what they print.

        All of them have to succeed.
        """
        lines = json.dumps([[str(part) for part in command] for command in commands])
        return self.run(sys.executable, "-c", EACH, lines).stdout

    def run(self, *command: object) -> "subprocess.CompletedProcess[str]":
        """Run a command that sees the token, and has to succeed."""
        done = self.tried(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def tried(self, *command: object) -> "subprocess.CompletedProcess[str]":
        """Run a command that sees the token."""
        return subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def _needed() -> str:
    module = next((path for path in MODULES if Path(path).exists()), "")
    missing = [name for name in ("softhsm2-util", "pkcs11-tool") if not shutil.which(name)]
    if module and not missing:
        return module
    text = f"no SoftHSM here: {', '.join(missing) or 'its module'} is missing (softhsm2, opensc)"
    if os.environ.get("CI_REQUIRES_SOFTHSM") == "1":
        pytest.fail(text)
    pytest.skip(text)
