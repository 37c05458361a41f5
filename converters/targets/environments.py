"""Environments of their own for vendors' packages, whose pins clash with ours and each other's."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from converters.refusal import StageFailed
from converters.targets import places
from edge_core.errors import Unavailable

Say = Callable[[str], None]
WORKERS = Path(__file__).parent / "workers"
SECONDS = 600.0


class Requirements(NamedTuple):
    """What one environment holds; steps are arguments of ``pip install``, in order."""

    kind: str
    steps: tuple[tuple[str, ...], ...]

    @property
    def wanted(self) -> str:
        """What the stamp says."""
        return "\n".join((sys.version, *(" ".join(step) for step in self.steps)))


def installed(requirements: Requirements) -> bool:
    """Whether the environment is whole."""
    return places.installed(requirements.kind, requirements.wanted)


def install(requirements: Requirements, say: Say) -> None:
    """Make the environment; done at once where it is there already.

    Raises:
        Unavailable: a package cannot be had.
    """
    with places.installing(requirements.kind, requirements.wanted) as place:
        if place is None:
            say(f"{places.folder(requirements.kind)} is complete")
            return
        _tool([sys.executable, "-m", "venv", str(place)])
        for step in requirements.steps:
            say(f"pip install {' '.join(step)} ...")
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            _tool([*pip, "--disable-pip-version-check", *step])
    say(f"installed in {places.folder(requirements.kind)}")


def run_worker(requirements: Requirements, script: str, arguments: Sequence[str]) -> str:
    """Run a plain script of ``workers/`` in an environment and return what it printed.

    Raises:
        Unavailable: the environment is not installed.
        StageFailed: the script failed or took too long; the message is its last line.
    """
    if not installed(requirements):
        raise Unavailable(f"the environment {requirements.kind} is not installed")
    python = places.folder(requirements.kind) / "bin" / "python"
    command = [str(python), str(WORKERS / script), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"{script} took more than {SECONDS:g} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        told = lines[-1][:300] if lines else f"no word, ended with {done.returncode}"
        raise StageFailed(f"{script.removesuffix('.py')}: {told}")
    return done.stdout


def _tool(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{' '.join(command[1:5])} failed: {lines[-1] if lines else ''}")
