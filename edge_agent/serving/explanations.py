"""Explanations that wait until no live request does. On the inference thread."""

import logging
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from edge_agent.serving import explaining
from edge_agent.serving.asking import Explain
from edge_agent.serving.memory import Rows
from edge_agent.serving.work import Answer, Job
from edge_core.errors import DeadlineExceeded, Overloaded, SerinusError, Unavailable
from edge_core.occlusion import Effects

PART_ROWS = 64
"""Rows that the model answers before live requests are looked for again."""
MAX_WAIT_SECONDS = 30.0

log = logging.getLogger(__name__)


class _Begun(NamedTuple):
    """An explanation, and its rows so far."""

    job: Job
    work: Explain
    rows: Rows
    parts: list[Effects]


class Explanations:
    """Explains a few rows at a time, in the order in which they came."""

    def __init__(self, max_rows: int) -> None:
        """Let answers to so many rows wait at most."""
        self._max_rows = max_rows
        self._waiting: deque[_Begun] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Rows that the model has to answer for them."""
        return sum(begun.work.rows for begun in self._waiting)

    def check(self, work: Explain) -> None:
        """Raise :class:`Overloaded` where too many wait already."""
        if self.rows + work.rows > self._max_rows:
            raise Overloaded(
                f"{self.rows} rows wait to be explained already, and this takes {work.rows}; the "
                f"limit is {self._max_rows}: try again later"
            )

    def add(self, job: Job, work: Explain, rows: Rows) -> None:
        """Let rows wait to be explained."""
        self._waiting.append(_Begun(job, work, rows, []))

    def step(self, *, idle: bool) -> list[tuple[Job, Answer]]:
        """Explain some rows where no live request waits; give back what is finished or too old."""
        if not self._waiting:
            return []
        done: list[tuple[Job, Answer]] = []
        now = time.perf_counter()
        while self._waiting and (late := _late(self._waiting[0].job, now)):
            done.append((self._waiting.popleft().job, late))
        if idle and self._waiting:
            begun = self._waiting[0]
            answer = _continued(begun)
            if answer is not None:
                self._waiting.popleft()
                done.append((begun.job, answer))
        return done

    def abandon(self) -> list[tuple[Job, Answer]]:
        """Refuse all that wait: the agent stops."""
        waiting, self._waiting = self._waiting, deque()
        return [(begun.job, Unavailable("the agent is stopping; try again")) for begun in waiting]


def _late(job: Job, now: float) -> SerinusError | None:
    """Why it is too late to explain."""
    if job.deadline is not None and job.deadline < now:
        return DeadlineExceeded("the deadline passed before the model was free to explain")
    if job.started < now - MAX_WAIT_SECONDS:
        return Overloaded("live requests left no time to explain; try again when fewer come")
    return None


def _continued(begun: _Begun) -> Answer | None:
    """Explain the next rows; the answer once all of them are."""
    job, work, rows, parts = begun
    release = job.active.release
    try:
        by, names = explaining.occluded(release, work.how.by)
        start = sum(len(part.probabilities) for part in parts)
        stop = start + max(1, PART_ROWS // (1 + len(names)))
        features = None if rows.features is None else rows.features[start:stop]
        parts.append(explaining.explained(release, by, names, rows.raw[start:stop], features))
        if stop < len(rows.raw):
            return None
        found = Effects(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.changes for part in parts]),
        )
        return explaining.explanation(release, by, names, found, per_class=work.how.per_class)
    except SerinusError as error:
        return error
    except Exception as error:  # a defect of ours or of a runtime: the next requests are served
        log.error("explaining failed: %s: %s", type(error).__name__, error)
        return Unavailable(f"the agent could not explain ({type(error).__name__}: {error})")
