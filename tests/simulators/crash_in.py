"""An agent that dies by SIGKILL as soon as one function of it opens a file.

``python -m tests.simulators.crash_in FUNCTION ARGUMENTS...`` runs the agent's command. It stands
for a runtime that takes the whole process with it; nothing of the agent is replaced.
"""

import os
import signal
import sys
from types import FrameType

from edge_agent.__main__ import main


def _inside(name: str) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


if __name__ == "__main__":
    function, *rest = sys.argv[1:]

    def die(event: str, _arguments: tuple[object, ...]) -> None:
        """See one audit event."""
        if event == "open" and _inside(function):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    sys.exit(main(rest))
