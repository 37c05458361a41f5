"""``make conformance SUITE=folder``: the public tuf-conformance suite against our client.

The suite is checked out beside the project; nothing of it is a part of the project. It pins its own
versions of python-tuf and pytest, so it gets an environment of its own below ``build/``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
CLIENTS = {
    "python-tuf's own": "clients/python-tuf/python_tuf.py",
    "the agent's": str(ROOT / "tests" / "security" / "tuf_client.py"),
}
OUTCOMES = ("passed", "failed", "xfailed", "xpassed", "skipped", "error")
WHERE = "git clone https://github.com/theupdateframework/tuf-conformance"


def main() -> int:
    """Run the suite against both clients; 1 where ours fails a test."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument(
        "suite", type=lambda text: Path(text).resolve(), help="the suite, checked out"
    )
    parser.add_argument("--python", type=Path, help="of an environment that has the suite's needs")
    options = parser.parse_args()
    if not (options.suite / "tuf_conformance").is_dir():
        print(f"{options.suite} is no tuf-conformance: {WHERE}, name it by SUITE=", file=sys.stderr)
        return 2
    if shutil.which("faketime") is None:
        print("the suite needs faketime: apt-get install faketime", file=sys.stderr)
        return 2
    python = options.python or _environment(options.suite)
    found = {name: _run(python, options.suite, path) for name, path in CLIENTS.items()}
    commit = subprocess.run(
        ["git", "-C", str(options.suite), "log", "-1", "--format=%h of %cs"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    _tell(found, commit)
    return 1 if found["the agent's"].get("failed") or found["the agent's"].get("error") else 0


def _environment(suite: Path) -> Path:
    folder = ROOT / "build" / "conformance-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"setting up {folder} (once) ...", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(suite)], check=True)
    return python


def _run(python: Path, suite: Path, client: str) -> dict[str, int]:
    """Counts by outcome."""
    report = ROOT / "build" / "conformance.json"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    entry = _started_by(client, suite, sys.executable if client.startswith("/") else str(python))
    done = subprocess.run(
        [
            # Its own settings: pytest would take those of the folder that holds the client.
            str(python), "-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".",
            "tuf_conformance", "-q", "--entrypoint", str(entry),
            "--json-report", "--json-report-file", str(report),
        ],
        cwd=suite, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not report.exists():
        raise SystemExit(f"the suite does not run: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    told = json.loads(report.read_text())
    for test in told["tests"]:
        if test["outcome"] in ("failed", "error"):
            print(f"{client}: {test['nodeid']} {test['outcome']}")
    return {name: told["summary"].get(name, 0) for name in OUTCOMES}


def _started_by(client: str, suite: Path, python: str) -> Path:
    """An executable that starts a client with the environment that it belongs to."""
    entry = ROOT / "build" / f"conformance-{Path(client).stem}"
    entry.parent.mkdir(exist_ok=True)
    path = f'PYTHONPATH="{ROOT}" ' if client.startswith("/") else ""
    entry.write_text(f'#!/bin/sh\n{path}exec "{python}" "{suite / client}" "$@"\n')
    entry.chmod(0o755)
    expected = suite / f"{client}.xfails"
    if expected.exists():
        shutil.copyfile(expected, f"{entry}.xfails")
    return entry


def _tell(found: dict[str, dict[str, int]], commit: str) -> None:
    table = Table("client", *OUTCOMES, title=f"tuf-conformance {commit}")
    for name, counts in found.items():
        table.add_row(name, *(str(counts[outcome]) for outcome in OUTCOMES))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
