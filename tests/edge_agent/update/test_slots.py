"""Slots are whole or not there, whatever instant the power goes."""

import signal
import subprocess
import sys
from pathlib import Path

from edge_agent.update.slots import Slots

REMOVER = """
import os, signal, sys
from pathlib import Path
from edge_agent.update.slots import Slots
removed = []
def die(event, arguments):
    if event == "os.remove":
        removed.append(arguments[0])
        if len(removed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
Slots(Path(sys.argv[1])).collect([])
"""


def test_a_cut_while_a_slot_is_removed_leaves_no_half_of_one(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slots.path("a").mkdir()
    for name in ("one", "two", "three"):
        (slots.path("a") / name).touch()
    done = subprocess.run([sys.executable, "-c", REMOVER, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not slots.has("a")
    assert len(list(slots.partial("a").iterdir())) == 2
    slots.collect([])
    assert not any((tmp_path / "slots").iterdir())
