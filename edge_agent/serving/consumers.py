"""Who asks: the process at the other end of a Unix socket, or a name given over HTTP or gRPC.

The user of a process is told by the kernel; the rest is what a client says of itself, good enough
to see who depends on a model and too weak to grant anything.
"""

import re
import socket
import struct
from pathlib import Path

from edge_core.errors import InvalidInput

HTTP_HEADER = b"x-serinus-consumer"
GRPC_METADATA = "serinus-consumer"
MAX_LENGTH = 64
PEER = struct.Struct("3i")
MAX_ARGUMENT_BYTES = 4096
"""Of a process' arguments; some have megabytes of them."""
_INTERPRETER = re.compile(r"^(python|node|ruby|perl|bash|sh)[\d.]*$")
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/@:-]{{0,{MAX_LENGTH - 1}}}")
_STRANGE = re.compile(r"[^A-Za-z0-9._:/-]")


def peer_of(connection: socket.socket) -> str:
    """Name of the process that opened a connection, such as ``uid:1000/camera.py``.

    Source: SO_PEERCRED of unix(7).
    """
    pid, uid, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb", buffering=0) as file:
            arguments = file.read(MAX_ARGUMENT_BYTES).split(b"\0")
    except OSError:  # it has ended, or lives in another namespace
        arguments = []
    return of_process(uid, [argument.decode(errors="replace") for argument in arguments])


def of_process(uid: int, arguments: list[str]) -> str:
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


def named(value: str | bytes | None, otherwise: str) -> str:
    """The name that a client gave, or ``otherwise`` where it gave none.

    Raises:
        InvalidInput: it is too long, or has characters that logs and statistics do not keep.
    """
    if value is None:
        return otherwise
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"a consumer's name has 1 to {MAX_LENGTH} letters, digits and ._/@:- and begins with a "
            "letter or digit"
        )
    return text
