"""What features remember, on disk: so that a restart begins where the process before ended."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_agent.serving.remembering import Stored
from edge_agent.serving.work import Remembered
from edge_core import durable, packed
from edge_core.errors import InvalidInput, Unavailable, quoted

MEMORY_VERSION = 1
FILE = "memory.bin"
DIGEST_BYTES = 32
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
FAST = 1
"""Level of compression: a flash that is written every minute is worth it, more is not."""


class _Version(msgspec.Struct):
    v: int


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = MEMORY_VERSION
    definition: str
    at_ms: int
    parts: dict[str, bytes]


class MemoryFile:
    """The file below one state folder: a sha256 and the packed content that it is of."""

    def __init__(self, folder: Path, *, max_bytes: int, max_age_seconds: float) -> None:
        """Take a folder.

        Args:
            folder: the state folder.
            max_bytes: of the file; what is larger is neither written nor read.
            max_age_seconds: what was stored longer ago is not read.
        """
        self._path = folder / FILE
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_seconds * 1000

    def write(self, remembered: Remembered, at_ms: int) -> None:
        """Store durably in place of what was stored before.

        Raises:
            Unavailable: it is too large, or the disk is full or failed; what was stored stays.
        """
        content = _File(definition=remembered.definition, at_ms=at_ms, parts=dict(remembered.parts))
        body = packed.pack(msgspec.msgpack.encode(content), level=FAST)
        size = DIGEST_BYTES + len(body)
        if size > self._max_bytes:
            raise Unavailable(
                f"what features remember takes {size} bytes; [memory] max_bytes is "
                f"{self._max_bytes}"
            )
        try:
            durable.write_bytes(self._path, hashlib.sha256(body).digest() + body, mode=0o600)
        except OSError as error:
            raise Unavailable(
                f"what features remember cannot be stored: {error.strerror}"
            ) from error

    def read(self, now_ms: int) -> Stored | None:
        """What was stored; none where nothing was.

        Raises:
            InvalidInput: it is damaged, too large, too old, or of an unknown version.
        """
        try:
            with self._path.open("rb") as stream:
                data = stream.read(self._max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be read: {error.strerror}") from error
        if len(data) > self._max_bytes:
            raise InvalidInput(f"{self._path} has more than {self._max_bytes} bytes")
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise InvalidInput(f"{self._path} is damaged: its bytes are not those of its digest")
        content = _parsed(self._path, packed.unpack(body, MAX_UNPACKED_BYTES))
        age_ms = now_ms - content.at_ms
        if age_ms > self._max_age_ms:
            raise InvalidInput(f"{self._path} was stored {age_ms / 3_600_000:.1f} hours ago")
        parts: Mapping[str, bytes] = content.parts
        return Stored(definition=content.definition, at_ms=content.at_ms, parts=parts)


def _parsed(path: Path, data: bytes) -> _File:
    try:
        version = msgspec.msgpack.decode(data, type=_Version).v
        if version != MEMORY_VERSION:
            raise InvalidInput(f"{path} has version {version}; known is {MEMORY_VERSION}")
        return msgspec.msgpack.decode(data, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is damaged: {quoted(error)}") from error
