"""Which release gave which answer: one line for each batch, in two files of bounded size.

Lines are JSON. The newer file is ``predictions.log``; when it is full it becomes
``predictions.log.1``, in the place of the older one. Lines are written after the answers were sent,
and a disk that fails costs its lines only.
"""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent.monitor import Batch, Role
from edge_agent.serving.predictions import Remembered
from edge_core.errors import InvalidInput, Unavailable

NAME = "predictions.log"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One batch of answers with consecutive ids: ``token-<hex>``, from ``first`` on."""

    at_us: int
    token: str
    first: int
    rows: int
    model: str
    version: str
    digest: str
    target: str
    runtime: str
    arm: str
    rollout: str | None = None
    slices: dict[str, str] = {}
    cached: int = 0
    cause: str = ""
    """Why the baseline answered."""
    consumers: dict[str, int] = {}

    @property
    def served_by(self) -> str:
        """``model`` or ``fallback``; some of a batch's rows may have come from the cache."""
        return "fallback" if self.arm == "fallback" else "model"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class PredictionLog:
    """Belongs to the inference thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Write below ``folder``, at most ``max_bytes`` in both files together."""
        self._path = folder / NAME
        self._limit = max_bytes // 2
        self._buffer = bytearray()
        self._descriptor = -1
        self._size = 0
        self.lost = 0
        """Lines that the disk did not take."""

    def note(
        self, at_us: int, role: Role, runtime: str, remembered: Remembered, batch: Batch
    ) -> None:
        """Note one batch."""
        line = Line(
            at_us=at_us,
            token=batch.ids[0].partition("-")[0],
            first=remembered.first,
            rows=len(batch.ids),
            model=role.release.model,
            version=role.release.version,
            digest=role.release.digest,
            target=role.target,
            runtime=runtime,
            arm=role.arm,
            rollout=role.rollout,
            slices=batch.slices,
            cached=batch.cached,
            cause=batch.cause or "",
            consumers=dict(batch.consumers),
        )
        self._buffer += _encoder.encode(line)
        self._buffer += b"\n"

    def flush(self) -> None:
        """Write what was noted."""
        if not self._buffer:
            return
        lines = bytes(self._buffer)
        self._buffer.clear()
        try:
            self._write(lines)
        except OSError as error:
            if not self.lost:
                log.error("the prediction log cannot be written: %s", error.strerror or error)
            self.lost += lines.count(b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, lines: bytes) -> None:
        if self._descriptor < 0:
            lines = self._open() + lines
        if self._size and self._size + len(lines) > self._limit:
            self.close()
            self._path.replace(older(self._path))
            lines = self._open() + lines.lstrip(b"\n")
        written = os.write(self._descriptor, lines)
        self._size += written
        if written < len(lines):
            self.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> bytes:
        """Open the newer file; what ends its last line, which may be torn."""
        self._descriptor = os.open(self._path, _APPEND, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        return b"\n" if self._size else b""


def older(path: Path) -> Path:
    """The file that the newer one becomes."""
    return path.with_name(f"{path.name}.1")


def find(folder: Path, prediction_id: str) -> Line | None:
    """The line of the batch that a prediction belongs to; none where it is not there any more.

    Raises:
        InvalidInput: it is no prediction's id.
        Unavailable: the log cannot be read.
    """
    token, _, digits = prediction_id.partition("-")
    try:
        number = int(digits, 16)
    except ValueError as error:
        raise InvalidInput(
            f"{prediction_id[:64]!r} is no prediction id; one looks like 5f3a9c01-2b"
        ) from error
    newest = folder / NAME
    for path in (newest, older(newest)):
        for line in _lines(path):
            if line.token == token and line.first <= number < line.first + line.rows:
                return line
    return None


def _lines(path: Path) -> Iterator[Line]:
    """Whole lines; one that a power cut tore, or a disk damaged, is left out."""
    try:
        with path.open("rb") as file:
            for data in file:
                try:
                    yield _decoder.decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
