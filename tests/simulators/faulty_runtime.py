"""A model runtime whose native code fails: the real one, until a file says otherwise.

``python -m tests.simulators.faulty_runtime FAULT ARGUMENTS...`` runs the agent's command with it,
as a device maker's runtime would stand behind the same port. ``FAULT`` is a file; while it exists
it holds a release's digest and a mode:

- ``open``: opening that release's model reads address 0 (SIGSEGV);
- ``run``: answering does;
- ``hang``: answering never returns, and lets other threads run;
- ``lock``: answering never returns, and keeps the interpreter's lock.
"""

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.inference import onnx
from edge_agent.inference import session as sessions
from edge_agent.inference.session import Float32, Session

FAULT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/nonexistent")
AGES = 10_000


def _fault(path: Path, *modes: str) -> str:
    """The mode among these that the model at this path has now."""
    if not FAULT.exists():
        return ""
    digest, mode = FAULT.read_text().split()
    return mode if digest in path.parts and mode in modes else ""


class FaultySession:
    """The runtime of another session, until its fault."""

    def __init__(self, path: Path, session: Session) -> None:
        self._path = path
        self._session = session
        self._opened = False
        self.runtime = session.runtime
        self.placement = session.placement
        self.absent = session.absent

    def run(self, rows: Float32) -> Float32:
        """Answer, or fail as native code does; the first call is the check of its opening."""
        mode = _fault(self._path, "run", "hang", "lock") if self._opened else ""
        self._opened = True
        match mode:
            case "run":
                ctypes.string_at(0)
            case "hang":
                ctypes.CDLL(None).sleep(AGES)
            case "lock":
                ctypes.PyDLL(None).sleep(AGES)
        return self._session.run(rows)


def open_model(path: Path, providers: Sequence[str]) -> FaultySession:
    """Load a model, or die of it."""
    if _fault(path, "open"):
        ctypes.string_at(0)
    return FaultySession(path, onnx.open_model(path, providers))


if __name__ == "__main__":
    from edge_agent.__main__ import main

    sys.modules["tests.simulators.faulty_runtime"] = sys.modules["__main__"]
    sessions.MODULES["onnxruntime"] = "tests.simulators.faulty_runtime"
    sys.exit(main(sys.argv[2:]))
