"""Environments of their own for vendors' packages, whose pins clash with ours and each other's."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from converters.refusal import StageFailed
from converters.targets import places
from edge_core.errors import Unavailable, quoted

Say = Callable[[str], None]
WORKERS = Path(__file__).parent / "workers"
SECONDS = 600.0
"""For one worker."""
INSTALL_SECONDS = 1800.0
"""For one step of an installation."""


class Requirements(NamedTuple):
    """What one environment holds; steps are arguments of ``pip install``, in order."""

    kind: str
    steps: tuple[tuple[str, ...], ...]

    @property
    def wanted(self) -> str:
        """What the stamp says."""
        return "\n".join((sys.version, *(" ".join(step) for step in self.steps)))


class Said(NamedTuple):
    """What a worker wrote."""

    output: str
    errors: str


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
        _tool([sys.executable, "-m", "venv", str(place)], "venv")
        pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        for step in requirements.steps:
            say(f"pip install {' '.join(step)} ...")
            _tool([*pip, "install", *step], "pip")
    say(f"installed in {places.folder(requirements.kind)}")


def run_worker(
    requirements: Requirements | None,
    script: str,
    arguments: Sequence[str],
    variables: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Said:
    """Run a plain script of ``workers/`` in another process, which sees nothing of ours.

    Args:
        requirements: of the environment that it runs in; none: in this one.
        script: name of the file in ``workers/``.
        arguments: for the script.
        variables: to set besides those of this process.
        seconds: that it may take.

    Raises:
        StageFailed: the script failed or took too long; the message is its last line.
        Unavailable: the environment is not installed.
    """
    if requirements is not None and not installed(requirements):
        raise Unavailable(f"the environment {requirements.kind} is not installed")
    interpreter = Path(sys.executable) if requirements is None else _python(requirements)
    # Isolated: neither PYTHONPATH nor the script's folder may stand before the vendor's packages.
    command = [str(interpreter), "-I", str(WORKERS / script), *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"{script} took more than {seconds:g} s") from error
    if done.returncode:
        told = quoted(RuntimeError(_last(done.stderr) or _last(done.stdout)))
        why = told or f"no word, ended with {done.returncode}"
        raise StageFailed(f"{script.removesuffix('.py')}: {why}")
    return Said(done.stdout, done.stderr)


def _python(requirements: Requirements) -> Path:
    return places.folder(requirements.kind) / "bin" / "python"


def _tool(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} took more than {INSTALL_SECONDS:g} s; try again") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        told = (errors or [_last(done.stderr) or _last(done.stdout)])[-1]
        raise Unavailable(f"{name} failed: {told}; check the network, then install again")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
