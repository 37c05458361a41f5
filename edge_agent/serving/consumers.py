"""Who asks: a name for the process at the other end of a Unix socket.

The user is told by the kernel; the program is what the process says of itself, good enough to see
who depends on a model and too weak to grant anything.
"""

import re
import socket
import struct
from pathlib import Path

MAX_LENGTH = 64
PEER = struct.Struct("3i")
_INTERPRETER = re.compile(r"^(python|node|ruby|perl|bash|sh)[\d.]*$")
_STRANGE = re.compile(r"[^A-Za-z0-9._:/-]")


def peer_of(connection: socket.socket) -> str:
    """Name of the process that opened a connection, such as ``uid:1000/camera.py``.

    Source: SO_PEERCRED of unix(7).
    """
    pid, uid, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or lives in another namespace
        arguments = []
    return named(uid, [argument.decode(errors="replace") for argument in arguments])


def named(uid: int, arguments: list[str]) -> str:
    """The user and the program; of an interpreter, the script or module that it runs."""
    program = _base(arguments[0]) if arguments else ""
    if _INTERPRETER.match(program):
        rest = [argument for argument in arguments[1:] if argument and argument[0] != "-"]
        program = _base(rest[0]) if rest else program
    return cleaned(f"uid:{uid}/{program}" if program else f"uid:{uid}")


def cleaned(name: str) -> str:
    """A name of harmless characters and bounded length."""
    return _STRANGE.sub("_", name)[:MAX_LENGTH]


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]
