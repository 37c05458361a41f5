"""Debian packages unpacked into a folder; nothing of the host changes."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_core.errors import Unavailable

RELEASE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 600.0
"""For one command."""


def unpack(packages: Sequence[str], suite: str, root: Path) -> dict[str, str]:
    """Download packages of this machine's kind and unpack them, with a package list of our own.

    Args:
        packages: all that are wanted; what they depend on is not followed.
        suite: preferred over :data:`RELEASE` where it has a package, such as backports.
        root: folder that stands for ``/``.

    Returns:
        Versions by package.

    Raises:
        Unavailable: this is no Debian of that release, or a package cannot be had.
    """
    mirror = _mirror()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("lists/partial", "archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        lines = [f"deb [signed-by={KEYRING}] {mirror} {name} main\n" for name in (RELEASE, suite)]
        (folder / "sources.list").write_text("".join(lines))
        options = {
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Dir::Etc::SourceList": str(folder / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
            "Dir::Cache": str(folder),
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        _run([*apt, "update"], folder)
        _run([*apt, f"--target-release={suite}", "download", *packages], folder / "debs")
        files = sorted((folder / "debs").glob("*.deb"))
        for file in files:
            _run(["dpkg", "-x", str(file), str(root)], folder)
    return {name: version for name, version, _ in (file.stem.split("_") for file in files)}


def _mirror() -> str:
    """Where this machine takes Debian's packages from."""
    shape = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    said = _run(["apt-get", "indextargets", "--format", shape, "Created-By: Packages"], Path.cwd())
    found = [line.split() for line in said.splitlines()]
    mirrors = [words[2] for words in found if words[:2] == [RELEASE, "main"]]
    if not mirrors:
        raise Unavailable(f"this machine takes no packages of Debian {RELEASE}; use one that does")
    return mirrors[0]


def _run(command: list[str], folder: Path) -> str:
    name = command[0]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{name} is missing: this needs Debian 12") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} took more than {SECONDS:g} s; check the network") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise Unavailable(f"{name} failed: {(lines or ['it said nothing'])[0]}")
    return done.stdout
