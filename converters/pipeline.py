"""Runs stages: conditions before and after, digests, times, one clear line on failure."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from converters import provenance
from converters.cache import Cache
from converters.quiet import silenced
from converters.refusal import StageFailed
from converters.stage import Given, Made, Stage, StoredStage
from edge_core.errors import SerinusError


class Report(Protocol):
    """Where progress goes."""

    def started(self, name: str) -> None:
        """Tell that a stage began."""
        ...

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        """Tell that a stage is done, and whether its product was there already."""
        ...

    def failed(self, name: str) -> None:
        """Tell that a stage ended the build."""
        ...


class Quiet:
    """A report that nobody reads."""

    def started(self, name: str) -> None:
        """See :class:`Report`."""

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        """See :class:`Report`."""

    def failed(self, name: str) -> None:
        """See :class:`Report`."""


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage turned into what."""

    name: str
    given: str
    made: str
    seconds: float
    cached: bool


class Pipeline:
    """One build's runner; remembers what it ran."""

    def __init__(self, report: Report, clock: Callable[[], float], cache: Cache) -> None:
        self._report = report
        self._clock = clock
        self._cache = cache
        self.records: list[StageRecord] = []

    def run(self, stage: Stage[Given, Made], given: Given) -> Made:
        """Run one stage and check its conditions, or take its product from the cache.

        Raises:
            SerinusError: a condition does not hold.
            StageFailed: a tool failed, or the stage changed its input.
        """
        self._report.started(stage.name)
        start, before = self._clock(), given.digest()
        try:
            made, cached = self._made(stage, given, before)
        except BaseException:
            self._report.failed(stage.name)
            raise
        seconds = self._clock() - start
        self.records.append(
            StageRecord(
                name=stage.name, given=before, made=made.digest(), seconds=seconds, cached=cached
            )
        )
        self._report.finished(stage.name, seconds, cached)
        return made

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Report a piece of work that is no stage."""
        self._report.started(name)
        start = self._clock()
        try:
            yield
        except BaseException:
            self._report.failed(name)
            raise
        self._report.finished(name, self._clock() - start, False)

    def _made(self, stage: Stage[Given, Made], given: Given, before: str) -> tuple[Made, bool]:
        if not isinstance(stage, StoredStage):
            return self._checked(stage, given, before), False
        key = hashlib.sha256(f"{stage.name}\0{code_digest()}\0{before}".encode()).hexdigest()
        with self._cache.locked(key):
            data = self._cache.get(key)
            if data is not None:
                return stage.unpack(data), True
            made = self._checked(stage, given, before)
            self._cache.put(key, stage.pack(made))
            return made, False

    def _checked(self, stage: Stage[Given, Made], given: Given, before: str) -> Made:
        try:
            stage.requires(given)
            with silenced():
                made = stage.run(given)
            stage.ensures(given, made)
        except (SerinusError, OSError):
            raise
        except Exception as error:
            raise StageFailed(self._failure(stage.name, error)) from error
        if given.digest() != before:
            raise StageFailed(f"{stage.name} changed its input; nothing is shipped")
        return made

    def _failure(self, name: str, error: Exception) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        done = ", ".join(record.name for record in self.records) or "nothing"
        return f"{name} failed: {type(error).__name__}: {text} (done before it: {done})"


@functools.cache
def code_digest() -> str:
    """Sha256 over everything beside its input that a product depends on: our code and the tools."""
    found = hashlib.sha256(repr(sorted(provenance.tools().items())).encode())
    found.update(provenance.machine().encode())
    root = Path(__file__).parents[1]
    for package in ("converters", "edge_core"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()
