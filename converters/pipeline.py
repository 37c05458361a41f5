"""Runs stages: conditions before and after, digests, times, one clear line on failure."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from converters.quiet import silenced
from converters.refusal import StageFailed
from converters.stage import Given, Made, Stage
from edge_core.errors import SerinusError


class Report(Protocol):
    """Where progress goes."""

    def started(self, name: str) -> None:
        """Tell that a stage began."""
        ...

    def finished(self, name: str, seconds: float) -> None:
        """Tell that a stage is done."""
        ...


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage turned into what."""

    name: str
    given: str
    made: str
    seconds: float


class Pipeline:
    """One build's runner; remembers what it ran."""

    def __init__(self, report: Report, clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self.records: list[StageRecord] = []

    def run(self, stage: Stage[Given, Made], given: Given) -> Made:
        """Run one stage and check its conditions.

        Raises:
            SerinusError: a condition does not hold.
            StageFailed: a tool failed, or the stage changed its input.
        """
        self._report.started(stage.name)
        start = self._clock()
        before = given.digest()
        try:
            with silenced():
                stage.requires(given)
                made = stage.run(given)
                stage.ensures(given, made)
        except (SerinusError, OSError):
            raise
        except Exception as error:
            raise StageFailed(self._failure(stage.name, error)) from error
        if given.digest() != before:
            raise StageFailed(f"{stage.name} changed its input; nothing is shipped")
        seconds = self._clock() - start
        self.records.append(
            StageRecord(name=stage.name, given=before, made=made.digest(), seconds=seconds)
        )
        self._report.finished(stage.name, seconds)
        return made

    def _failure(self, name: str, error: Exception) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        done = ", ".join(record.name for record in self.records) or "nothing"
        return f"{name} failed: {type(error).__name__}: {text} (done before it: {done})"
