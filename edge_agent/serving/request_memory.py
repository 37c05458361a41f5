"""Events that requests are answered from, and the time at which both came."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.sampling import Evidence, Sampled, Sampling
from edge_agent.serving.asking import NewEvents, Requests, WholeWindows, Work
from edge_agent.serving.memory import Rows
from edge_agent.serving.times import refuse_ahead
from edge_core.errors import InvalidInput
from edge_core.features import columns, logs
from edge_core.features.columns import Given
from edge_core.features.incomplete_requests import Completion
from edge_core.features.logs import Events, Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import Observed, RequestEvaluator
from edge_core.messages.telemetry import MAX_EVIDENCE_BYTES

NOTED_US = 1_000_000
"""A clock that is further behind is worth a line in the log."""
PART = "events"

log = logging.getLogger(__name__)


class RequestMemory:
    """One definition's evaluator; see :class:`~edge_agent.serving.memory.Memory`.

    Time never goes back: while the clock is behind what was seen already, it stands still.
    """

    def __init__(self, evaluator: RequestEvaluator, *, tolerates: bool = False) -> None:
        self.changes = 0
        self.clock_held = 0
        self.tolerates = tolerates
        self.counts = {"times_ahead": 0}
        self._evaluator = evaluator
        self._completion = Completion(evaluator.definition)
        self._noted = False

    @classmethod
    def restore(
        cls, definition: RequestDefinition, parts: Mapping[str, bytes], *, tolerates: bool = False
    ) -> "RequestMemory":
        """Go on where :meth:`snapshot` was taken; raise :class:`InvalidInput` for other bytes."""
        if set(parts) != {PART}:
            raise InvalidInput("it holds no events")
        return cls(RequestEvaluator.restore(definition, parts[PART]), tolerates=tolerates)

    @property
    def definition(self) -> RequestDefinition:
        """What requests are answered by."""
        return self._evaluator.definition

    @property
    def now_us(self) -> int:
        """Newest arrival or request so far."""
        return self._evaluator.now_us

    def take(self, work: Work, came_us: int, sampling: Sampling) -> Rows | Observed:
        """Remember events, or make rows of requests."""
        match work:
            case NewEvents():
                return self._observe(work, came_us)
            case Requests():
                return self._ask(work, came_us, sampling)
            case _:
                raise TypeError(f"{type(work).__name__} is no work on requests")

    def peek(self, work: WholeWindows | Requests, came_us: int) -> Rows:
        """The rows of requests, computed from a copy of what they can see."""
        if not isinstance(work, Requests):
            raise TypeError(f"{type(work).__name__} is no work on requests")
        name = self.definition.request.time
        request: dict[str, Any] = dict(work.fields)
        if name not in request:
            request[name] = [max(came_us, self._evaluator.now_us)] * work.rows
        else:
            refuse_ahead(name, request[name], came_us)
        copy = RequestEvaluator.restore(self.definition, self._evaluator.excerpt(request))
        return Rows(copy.numbers(request), copy.ask(request))

    def incomplete(self, rows: Rows) -> Rows:
        """Requests are judged when they are taken."""
        raise InvalidInput("the request does not fit the feature definition")

    def snapshot(self) -> Mapping[str, bytes]:
        """The evaluator's memory."""
        return {PART: self._evaluator.snapshot()}

    def _observe(self, work: NewEvents, came_us: int) -> Observed:
        arrived = work.arrived_us
        if arrived is None:
            arrived = [self._held(came_us)] * np.size(work.times_us)
        else:
            self._ahead_refused("an arrival", arrived, came_us)
        events = Events(work.times_us, work.sequence, arrived, work.fields)
        found = self._evaluator.observe(work.stream, events)
        self.changes += 1
        return found

    def _ask(self, work: Requests, came_us: int, sampling: Sampling) -> Rows:
        name = self.definition.request.time
        request: dict[str, Any] = dict(work.fields)
        if name not in request:
            request[name] = [self._held(came_us)] * work.rows
        else:
            self._ahead_refused(name, request[name], came_us)
        try:
            sampled = self._sampled(request, work.rows, sampling)
            features = self._evaluator.ask(request)
        except InvalidInput:
            found = self._incomplete(request, work.rows, came_us)
            if found is None:
                raise
            return found
        self.changes += 1
        times = np.asarray(request[name], np.int64)
        raw = self._evaluator.numbers(request)
        return Rows(raw, features, (times, times), sampled)

    def _incomplete(self, request: Given, rows: int, came_us: int) -> Rows | None:
        """Rows of requests that lack fields; none where that is not why they were refused."""
        if not self.tolerates:
            return None
        found = self._completion.completed(request, rows, came_us)
        if found is None:
            return None
        features = self._evaluator.ask(found.request).copy()
        raw = self._evaluator.numbers(found.request).copy()
        self._completion.blank(features, raw, found.missing)
        self.changes += 1
        times = np.asarray(request[self.definition.request.time], np.int64)
        return Rows(raw, features, (times, times), incomplete=found.rows)

    def _sampled(self, request: Given, rows: int, sampling: Sampling) -> Sampled | None:
        """The evidence of the row that is due, from before it was asked."""
        row = sampling.pick(rows)
        if row is None:
            return None
        columns.check(self.definition.request.fields, request)
        one = columns.taken(request, np.array([row]))
        memory = self._evaluator.excerpt(one)
        if len(memory) > MAX_EVIDENCE_BYTES:
            return Sampled(row)
        return Sampled(row, Evidence(logs.pack(Log({}, one)), memory))

    def _ahead_refused(self, what: str, times_us: npt.ArrayLike | object, came_us: int) -> None:
        try:
            refuse_ahead(what, times_us, came_us)
        except InvalidInput:
            self.counts["times_ahead"] += np.size(times_us)  # type: ignore[arg-type]  # an array
            raise

    def _held(self, came_us: int) -> int:
        """The moment by the clock, or the newest one seen where the clock is behind it."""
        newest = self._evaluator.now_us
        if came_us >= newest:
            return came_us
        self.clock_held += 1
        if newest - came_us >= NOTED_US and not self._noted:
            self._noted = True
            log.warning(
                "the clock is %.1f s behind what was seen already; time stands still until then",
                (newest - came_us) / 1e6,
            )
        return newest
