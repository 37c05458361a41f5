"""An agent that dies by SIGKILL at one exact file operation below its state folder.

``python -m tests.simulators.power_cut STATE_DIR NUMBER COUNT_FILE ARGUMENTS...`` runs the agent's
command. Nothing of the agent is replaced: Python's own audit events (PEP 578) are counted, just
before the operation happens, and the process kills itself at the given one. A run that gets
through writes how many there were.
"""

import os
import signal
import sys
from pathlib import Path

from edge_agent.__main__ import main

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class PowerCut:
    """Counts file operations below one folder."""

    def __init__(self, folder: str, number: int) -> None:
        self._folder = folder
        self._number = number
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """See one audit event."""
        if event not in OPERATIONS or not str(arguments[0]).startswith(self._folder):
            return
        self.seen += 1
        if self.seen == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, number, count_file, *rest = sys.argv[1:]
    cut = PowerCut(folder, int(number))
    sys.addaudithook(cut)
    code = main(rest)
    Path(count_file).write_text(str(cut.seen))
    sys.exit(code)
