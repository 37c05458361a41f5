"""Whether the model is asked at all: a circuit breaker, as one table. No clock, no I/O.

After too many failures the model is left alone for a while, so that a runtime which fails slowly
does not make everybody wait; then one batch tries it. (M. Nygard, "Release It!", 2007, ch. 5.)
"""

from collections import deque
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """The model is asked."""
    OPEN = "open"
    """It is not."""
    HALF_OPEN = "half_open"
    """One batch asks it."""


class Event(StrEnum):
    """What can happen to it."""

    ANSWERED = "answered"
    FAILED = "failed"
    """A failure that is not one too many."""
    TRIPPED = "tripped"
    """A failure too many."""
    WAITED = "waited"
    """The pause is over."""


class Row(NamedTuple):
    """What an event leads to."""

    next: State
    pauses: bool = False
    """Whether a pause begins."""


TABLE: dict[tuple[State, Event], Row] = {
    (State.CLOSED, Event.ANSWERED): Row(State.CLOSED),
    (State.CLOSED, Event.FAILED): Row(State.CLOSED),
    (State.CLOSED, Event.TRIPPED): Row(State.OPEN, pauses=True),
    (State.CLOSED, Event.WAITED): Row(State.CLOSED),
    # A batch that was asked before the breaker opened may end after it.
    (State.OPEN, Event.ANSWERED): Row(State.OPEN),
    (State.OPEN, Event.FAILED): Row(State.OPEN),
    (State.OPEN, Event.TRIPPED): Row(State.OPEN),
    (State.OPEN, Event.WAITED): Row(State.HALF_OPEN),
    (State.HALF_OPEN, Event.ANSWERED): Row(State.CLOSED),
    (State.HALF_OPEN, Event.FAILED): Row(State.OPEN, pauses=True),
    (State.HALF_OPEN, Event.TRIPPED): Row(State.OPEN, pauses=True),
    (State.HALF_OPEN, Event.WAITED): Row(State.HALF_OPEN),
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When it opens and for how long. Failures and answers are counted in batches."""

    failures_in_a_row: Annotated[int, msgspec.Meta(ge=1)] = 5
    failure_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Of the latest ``share_batches`` batches, once there are as many."""
    share_batches: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 50
    pause_seconds: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """The first pause; each failed try doubles it."""
    longest_pause_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0


class Breaker:
    """One model's breaker. The inference thread owns it; times are monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failed: deque[bool] = deque(maxlen=limits.share_batches)
        self._row = 0
        self._pauses = 0
        self._until = 0.0
        self.state = State.CLOSED
        self.opened = 0
        """How often it opened."""

    def asks(self, now: float) -> bool:
        """Whether the next batch asks the model; its outcome has to be told then."""
        if self.state is State.CLOSED:
            return True
        if now >= self._until:
            self._take(Event.WAITED, now)
        return self.state is State.HALF_OPEN

    def answered(self, now: float) -> None:
        """The model answered a batch."""
        self._row = 0
        self._failed.append(False)
        if self.state is not State.CLOSED:
            self._take(Event.ANSWERED, now)

    def failed(self, now: float) -> None:
        """The model did not answer a batch."""
        self._row += 1
        self._failed.append(True)
        self._take(Event.TRIPPED if self._too_many() else Event.FAILED, now)

    def _too_many(self) -> bool:
        limits = self._limits
        if self._row >= limits.failures_in_a_row:
            return True
        whole = len(self._failed) == limits.share_batches
        return whole and sum(self._failed) >= limits.failure_share * limits.share_batches

    def _take(self, event: Event, now: float) -> None:
        before, row = self.state, TABLE[self.state, event]
        self.state = row.next
        if row.pauses:
            limits = self._limits
            pause = limits.pause_seconds * 2.0 ** min(self._pauses, 32)
            self._until = now + min(pause, limits.longest_pause_seconds)
            self._pauses += 1
            self.opened += 1
        elif row.next is State.CLOSED and before is not State.CLOSED:
            self._row = self._pauses = 0
            self._failed.clear()
