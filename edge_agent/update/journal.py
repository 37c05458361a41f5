"""What an update has to remember over a power cut; written before each step."""

from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.update.sealing import seal, unseal
from edge_core import durable
from edge_core.errors import quoted
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Refusal, Sha256, Text

JOURNAL_VERSION = 2
UNSEALED_VERSION = 1
"""Without a digest; otherwise the same."""
MAX_JOURNAL_BYTES = 256 * 1024
MAX_REFUSALS = 8
FILE = "journal.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The persisted state. ``state`` is text, so that an unknown one can be read and recovered."""

    v: int = JOURNAL_VERSION
    state: str = "idle"
    desired: DesiredState | None = None
    starts: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Starts of the process since the state was entered; kept while a restart begins again."""
    proven: Sha256 | None = None
    """Digest of the release that passed its probation last."""
    reason: Text = ""
    refusals: list[Refusal] = []
    unhealthy_starts: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Starts of the process since it last ran for a healthy while, in states that try nothing."""
    boot: Text = ""
    """Which run of the machine the process last started in; empty where nobody knows."""
    power_cuts: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Starts that were not counted, because the machine had gone down with the process."""
    suspect: Sha256 | None = None
    """Digest of the release that ended the process too often, while it is being left."""
    without_model: Sha256 | None = None
    """Digest of a release whose model is not opened any more; its fallback answers alone."""

    def refused(self, refusal: Refusal) -> "Entry":
        """Return the entry with one refusal more; only the latest few are kept."""
        kept = [*self.refusals, refusal][-MAX_REFUSALS:]
        return msgspec.structs.replace(self, refusals=kept)


class Journal:
    """The journal file of one state folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def read(self) -> Entry:
        """Read the entry; an unreadable or foreign one asks for recovery, a missing one is new."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Entry()
        except OSError as error:
            return Entry(state="unreadable", reason=f"journal cannot be read: {error.strerror}")
        if len(data) > MAX_JOURNAL_BYTES:
            return Entry(state="unreadable", reason="journal is too large")
        try:
            body, sealed = unseal(data)
            entry = msgspec.json.decode(body, type=Entry)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Entry(state="unreadable", reason=f"journal is corrupt: {quoted(error)}")
        if entry.v != (JOURNAL_VERSION if sealed else UNSEALED_VERSION):
            return Entry(state="unreadable", reason=f"journal has version {entry.v}")
        return msgspec.structs.replace(entry, v=JOURNAL_VERSION)

    def write(self, entry: Entry) -> None:
        """Persist the entry before anything is done that it announces."""
        durable.write_bytes(self._path, seal(msgspec.json.encode(entry)))
