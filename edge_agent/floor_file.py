"""What time was reached, on disk: ``time.json`` beside the metadata that were fresh then."""

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.update.sealing import seal, unseal
from edge_core import durable
from edge_core.errors import quoted
from edge_core.messages.telemetry import Text

FILE = "time.json"
FLOOR_VERSION = 1
MAX_FILE_BYTES = 4096
"""Holds the longest text with every character escaped."""
MAX_MS = 253_402_300_799_000
"""The end of the year 9999; later is no date."""

log = logging.getLogger(__name__)


class StoredFloor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time that was reached, and in which run of the machine, and how long after its start."""

    v: int = FLOOR_VERSION
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]
    """Milliseconds since 1970, UTC."""
    boot: Text
    """Empty where nobody knows."""
    since_boot_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]


class FloorFile:
    """The file below one folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def read(self) -> StoredFloor | None:
        """What was stored; none where nothing was, or where it cannot be read, which is logged."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
            return _parsed(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            why = error.strerror or str(error)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = quoted(error)
        log.error("%s cannot be read, so that only the clock tells the time: %s", self._path, why)
        return None

    def write(self, floor: StoredFloor) -> None:
        """Store durably in place of what was stored before; raises ``OSError``."""
        durable.write_bytes(self._path, seal(msgspec.json.encode(floor)))


def _parsed(data: bytes) -> StoredFloor:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    body, sealed = unseal(data)
    if not sealed:
        raise ValueError("it has no digest")
    floor = msgspec.json.decode(body, type=StoredFloor)
    if floor.v != FLOOR_VERSION:
        raise ValueError(f"it has version {floor.v}; known is {FLOOR_VERSION}")
    return floor
