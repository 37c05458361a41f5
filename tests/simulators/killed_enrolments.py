"""Enrolments that die by SIGKILL just before each of their file operations, a device for each.

``python -m tests.simulators.killed_enrolments FOLDER SETTINGS TOKEN_FILE`` forks the agent's
command until one is not killed, lets each that was ask again, and prints a line of JSON for each.
"""

import json
import sys
from functools import partial
from itertools import count
from pathlib import Path

from edge_agent.__main__ import main
from edge_agent.identity import opening as opening  # imported before the forks
from tests.faults.forks import Fork
from tests.faults.kills import die_at

PREFIX = "kill-"
SECONDS = 60.0


def _enrol(config: Path, token_file: Path, state: Path, number: int | None) -> int:
    if number is not None:
        die_at(number, state)
    return main(["enrol", "--config", str(config), "--token-file", str(token_file)])


def _each(folder: Path, settings: str, token_file: Path) -> None:
    for number in count(1):
        own = folder / f"{PREFIX}{number}"
        state = own / "state"
        own.mkdir()
        config = own / "agent.toml"
        config.write_text(settings.format(device=own.name, state=state, folder=own))
        run = partial(_enrol, config, token_file, state)
        first = Fork(partial(run, number), own / "log")
        code = first.join(SECONDS)
        left = sorted(path.name for path in (state / "identity").glob("*"))
        if first.killed:
            code = Fork(partial(run, None), own / "log").join(SECONDS)
        said = {"device": own.name, "killed": first.killed, "left": left, "code": code}
        print(json.dumps(said), flush=True)
        if not first.killed:
            return


if __name__ == "__main__":
    work, template, token = map(Path, sys.argv[1:])
    _each(work, template.read_text(), token)
