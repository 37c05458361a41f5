"""Bounded, resumable fetch of one file of known length. No trust: the caller checks the digest."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.timed_http import CHUNK_BYTES, Answer, TimedHttp
from edge_core.errors import Unavailable

OK = 200
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
MAX_VALIDATOR = 256
SLICES_PER_SECOND = 8
"""A limited download is spread over this many pieces a second."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)\Z")

Positive = Annotated[float, msgspec.Meta(gt=0)]
Rate = Annotated[int, msgspec.Meta(ge=1)]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a download may be, and how slow."""

    most: Rate | None = None
    """Bytes per second; none for no limit."""
    least: Rate = 1024
    """Bytes per second that a server has to reach on average."""
    stall_seconds: Positive = 20.0
    """Longest silence, and the time before ``least`` is asked for."""

    @property
    def demanded(self) -> float:
        """What a server has to reach: our own limit must not make it look slow."""
        return self.least if self.most is None else min(self.least, self.most / 2)

    def seconds_for(self, size: int) -> float:
        """Time that ``size`` bytes may take."""
        return self.stall_seconds + size / self.demanded


class Downloader:
    """Brings files here, each into a ``part`` that outlasts cuts of connection and process."""

    def __init__(
        self,
        http: TimedHttp,
        pace: Pace,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = http
        self._pace = pace
        self._monotonic = monotonic
        self._sleep = sleep

    def fetch(self, url: str, size: int, part: Path) -> None:
        """Go on with ``part`` until it has ``size`` bytes.

        Raises:
            Unavailable: not to be had now; what came is kept, and the next call goes on from it.
            OSError: the part cannot be written.
        """
        held = part.stat().st_size if part.exists() else 0
        if held > size:
            discard(part)
            held = 0
        if 0 < held < size and self._go_on(url, size, part, held):
            return
        if held != size or not part.exists():
            with self._http.get(url, {}, seconds=self._pace.seconds_for(size)) as answer:
                if answer.status != OK:
                    raise Unavailable(f"the server answers with status {answer.status}")
                self._take_whole(answer, size, part)

    def _go_on(self, url: str, size: int, part: Path, held: int) -> bool:
        """Ask for the rest only; false where the server gives another one, and nothing is kept."""
        headers = {"Range": f"bytes={held}-"}
        validator = _stored_validator(part)
        if validator:
            headers["If-Range"] = validator
        seconds = self._pace.seconds_for(size)
        with self._http.get(url, headers, seconds=seconds) as answer:
            if answer.status == OK:  # it knows no ranges, or has another file now
                self._take_whole(answer, size, part)
                return True
            if answer.status == PARTIAL_CONTENT and _is_rest(answer, held, size):
                self._write(answer, part, held, size)
                return True
            if answer.status not in (PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE):
                raise Unavailable(f"the server answers with status {answer.status}")
        discard(part)
        return False

    def _take_whole(self, answer: Answer, size: int, part: Path) -> None:
        announced = _length(answer)
        if announced is not None and announced != size:
            raise Unavailable(
                f"the server announces {announced} bytes; the approved file has {size}"
            )
        discard(part)
        part.parent.mkdir(parents=True, exist_ok=True)
        _store_validator(part, answer)
        self._write(answer, part, 0, size)

    def _write(self, answer: Answer, part: Path, held: int, size: int) -> None:
        started, got = self._monotonic(), 0
        most = self._pace.most
        piece = CHUNK_BYTES if most is None else max(1, min(CHUNK_BYTES, most // SLICES_PER_SECOND))
        with part.open("ab" if held else "wb") as stream:
            for chunk in answer.chunks(piece):
                if held + got + len(chunk) > size:
                    stream.close()
                    discard(part)
                    raise Unavailable(f"the server sends more than the {size} bytes of the file")
                stream.write(chunk)
                got += len(chunk)
                self._keep_pace(started, got, held + got, size)
        if held + got < size:
            raise Unavailable(f"the connection ended after {held + got} of {size} bytes")

    def _keep_pace(self, started: float, got: int, held: int, size: int) -> None:
        elapsed = self._monotonic() - started
        if held < size and elapsed > self._pace.seconds_for(got):
            raise Unavailable(
                f"the server is too slow: {got} bytes in {elapsed:.0f} s; at least "
                f"{self._pace.demanded:.0f} a second are needed"
            )
        if self._pace.most is not None and got / self._pace.most > elapsed:
            self._sleep(got / self._pace.most - elapsed)


def discard(part: Path) -> None:
    """Remove what was fetched of a file."""
    part.unlink(missing_ok=True)
    _validator_of(part).unlink(missing_ok=True)


def finish(part: Path, destination: Path) -> None:
    """Give a whole and checked part its name."""
    _validator_of(part).unlink(missing_ok=True)
    part.replace(destination)


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _stored_validator(part: Path) -> str:
    try:
        text = _validator_of(part).read_bytes()[:MAX_VALIDATOR].decode("latin-1")
    except OSError:
        return ""
    return text if text.isprintable() else ""


def _store_validator(part: Path, answer: Answer) -> None:
    """Keep what names this version of the file (RFC 9110, 13.1.5: a weak tag does not)."""
    tag = answer.headers.get("ETag", "")
    named = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    if named and len(named) <= MAX_VALIDATOR and named.isprintable():
        _validator_of(part).write_bytes(named.encode("latin-1"))


def _length(answer: Answer) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _is_rest(answer: Answer, held: int, size: int) -> bool:
    """Whether a partial answer is exactly what was asked for."""
    found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    if found is None:
        return False
    first, last, total = int(found[1]), int(found[2]), found[3]
    length = _length(answer)
    return (
        (first, last) == (held, size - 1)
        and total in ("*", str(size))
        and length in (None, size - held)
    )
