"""Feeds a surface, and tells what must not happen from what may."""

import gc
import hashlib
import logging
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from edge_core.errors import MAX_TEXT, SerinusError
from tests.fuzz.mutator import Case, Mutator
from tests.fuzz.surface import Surface

SECONDS_EACH = 60.0
"""No measure of speed: what takes longer hangs, even where the machine is busy."""
CHECK_EVERY = 25


class Found(AssertionError):
    """Something that must not happen, and the input that it happened with."""

    def __init__(self, case: Case, said: str) -> None:
        super().__init__(said)
        self.case = case


class Stuck(BaseException):
    """One input took too long. No ``Exception``, so that nothing below takes it for its own."""


class Tally:
    """What became of inputs."""

    def __init__(self) -> None:
        self.inputs = 0
        self.refused = 0
        self.kinds: Counter[str] = Counter()
        """Refusals by the name of their error, where one was raised."""
        self.slowest = 0.0
        """Seconds of the slowest input."""


class Complaints(logging.Handler):
    """Errors that the program logs instead of raising them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def listening() -> Iterator[Complaints]:
    """Listen to what is logged as an error."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        yield complaints
    finally:
        logging.getLogger().removeHandler(complaints)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`Stuck` in here after so many seconds. On the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stuck(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def feed(surface: Surface, case: Case, tally: Tally, complaints: Complaints) -> None:
    """Feed one input.

    Raises:
        Found: another error than Serinus's own came out, or its text is not one line, or it took
            too long, or refusals were not counted once each.
    """
    before = surface.counted()
    began = time.perf_counter()
    try:
        with at_most(SECONDS_EACH):
            refusals = surface.feed(case)
    except SerinusError as error:
        refusals = 1
        tally.kinds[type(error).__name__] += 1
        _check_text(case, str(error))
    except (Exception, Stuck) as error:
        raise Found(case, "".join(traceback.format_exception(error))) from error
    tally.slowest = max(tally.slowest, time.perf_counter() - began)
    tally.inputs += 1
    tally.refused += refusals
    after = surface.counted()
    if before is not None and after is not None and after - before != refusals:
        raise Found(case, f"{refusals} refusals were counted as {after - before}")
    if complaints.said:
        raise Found(case, f"logged as an error: {complaints.said}")


def check(surface: Surface, case: Case) -> None:
    """Check that good input is answered as before; ``case`` is what came last."""
    try:
        with at_most(SECONDS_EACH):
            surface.check()
    except (Exception, Stuck) as error:
        said = "".join(traceback.format_exception(error))
        raise Found(case, f"afterwards, good input is not answered as before:\n{said}") from error


def welcome(surface: Surface) -> None:
    """Feed the good inputs to a surface that was just opened; each of them has to be taken."""
    tally = Tally()
    with listening() as complaints:
        for case in surface.seeds:
            feed(surface, case, tally, complaints)
            if tally.refused:
                raise Found(case, f"a good input is refused: {dict(tally.kinds)}")
            check(surface, case)


def run(surface: Surface, seed: int, goes_on: Callable[[Tally], bool]) -> Tally:
    """Feed bad inputs for as long as ``goes_on``; tell what became of them.

    Raises:
        Found: see :func:`feed` and :func:`check`.
    """
    tally = Tally()
    mutator = Mutator(seed, surface.forms, surface.seeds)
    case = surface.seeds[0]
    with listening() as complaints:
        while goes_on(tally):
            case = mutator.case()
            feed(surface, case, tally, complaints)
            if tally.inputs % CHECK_EVERY == 0:
                check(surface, case)
        check(surface, case)
    gc.collect()
    return tally


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def descriptors() -> int:
    """Files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def store(folder: Path, surface: str, case: Case) -> Path:
    """Keep an input; the name is the same for the same input."""
    data = msgspec.msgpack.encode([surface, list(case)])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{surface}-{hash_of(data)}.case"
    path.write_bytes(data)
    return path


def load(path: Path) -> tuple[str, Case]:
    """Read what :func:`store` kept."""
    content: Any = msgspec.msgpack.decode(path.read_bytes(), type=tuple[str, list[bytes]])
    return content[0], tuple(content[1])


def hash_of(data: bytes) -> str:
    """A short name for bytes."""
    return hashlib.sha256(data).hexdigest()[:12]


def _check_text(case: Case, text: str) -> None:
    odd = [character for character in text if not character.isprintable()]
    if odd or len(text) > MAX_TEXT:
        raise Found(case, f"a refusal is no short printable line: {text[:300]!r}, {odd[:5]}")
