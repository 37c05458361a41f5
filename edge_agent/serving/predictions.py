"""Answers, and the memory of recent ones, in which late labels find their prediction."""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.messages.telemetry import Arm
from edge_core.release import ReleaseRef
from edge_core.stats.histogram import Int64

MAX_ID_LENGTH = 64


class Prediction(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One answer. Times are microseconds of sensor time; 0 where the caller sent whole windows."""

    id: str
    model: str
    version: str
    digest: str
    target: str
    served_by: str
    """``model``, ``fallback`` or ``cache``."""
    label: str
    confidence: float
    scores: list[float]
    first_us: int = 0
    last_us: int = 0
    runtime: str = ""
    """Name and version of the runtime, and where it really runs."""
    cause: str = ""
    """Why the baseline answered: ``missing``, ``error``, ``breaker`` or ``command``."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known of an answer when its label comes."""

    release: ReleaseRef
    arm: Arm
    rollout: str | None
    slices: dict[str, str]
    target: str
    predicted: str
    confidence_bin: int
    bins: int
    """Number of confidence bins of the release."""
    shadow: ReleaseRef | None = None
    shadow_predicted: str = ""
    shadow_confidence_bin: int = 0
    shadow_bins: int = 0


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What one release said to a batch of rows."""

    release: ReleaseRef
    classes: Sequence[str]
    predicted: Int64
    """Class numbers, int64 [rows]."""
    confidence_bins: Int64
    """int64 [rows]."""
    bins: int
    """Number of confidence bins of the release."""


class Remembered:
    """A batch of answers with consecutive numbers; the shadow's opinion may come later."""

    __slots__ = ("_recent", "first", "given")

    def __init__(self, recent: "Recent", first: int, given: Opinion) -> None:
        self._recent = recent
        self.first = first
        self.given = given

    @property
    def rows(self) -> int:
        """Number of answers."""
        return len(self.given.predicted)

    def shadowed(self, opinion: Opinion) -> None:
        """Keep what the shadow said to the same rows."""
        self._recent.shadowed(self, opinion)


class _Key(NamedTuple):
    """What tells contexts apart; a release has its classes and bins."""

    release: ReleaseRef
    arm: Arm
    rollout: str | None
    slices: tuple[tuple[str, str], ...]
    target: str


class _Context(NamedTuple):
    """What many answers share."""

    key: _Key
    classes: Sequence[str]
    bins: int


_CONTEXT, _SHADOW, _LABELLED, _PREDICTED, _BIN, _SHADOW_PREDICTED, _SHADOW_BIN = range(7)
_AT_FIRST = slice(_CONTEXT, _PREDICTED)
"""Lines that are the same for a whole batch when it is remembered."""
_NO_CONTEXT = -1
MAX_CONTEXTS = 256
"""Beyond it those that no answer needs any more are dropped."""


class Recent:
    """The latest answers by number; the oldest is forgotten first.

    A prediction's id is a token of this process and the answer's number, so that an id of an
    earlier process finds nothing. Each answer takes seven numbers in a ring that is laid out once
    (28 bytes), however many rows came together; what answers share is kept beside it, once.
    """

    def __init__(self, capacity: int, token: str) -> None:
        self._capacity = capacity
        self._prefix = f"{token}-"
        self._ring = np.zeros((7, capacity), np.int32)
        self._first = np.array([[_NO_CONTEXT], [_NO_CONTEXT], [0]], np.int32)
        self._contexts: list[_Context] = []
        self._places: dict[_Key, int] = {}
        self._most_contexts = MAX_CONTEXTS
        self._next = 0
        # The inference thread remembers, the event loop takes.
        self._lock = threading.Lock()

    def ids(self, batch: Remembered) -> list[str]:
        """The ids of a batch's answers."""
        prefix, first = self._prefix, batch.first
        return [f"{prefix}{number:x}" for number in range(first, first + batch.rows)]

    def remember(
        self, given: Opinion, *, arm: Arm, rollout: str | None, slices: dict[str, str], target: str
    ) -> Remembered:
        """Number a batch of answers and keep it."""
        rows = len(given.predicted)
        with self._lock:
            batch = Remembered(self, self._next, given)
            self._next += rows
            key = _Key(given.release, arm, rollout, tuple(slices.items()), target)
            self._first[_CONTEXT] = self._place(key, given)
            for ring, part in self._parts(batch):
                ring[_AT_FIRST] = self._first
                ring[_PREDICTED] = given.predicted[part]
                ring[_BIN] = given.confidence_bins[part]
        return batch

    def shadowed(self, batch: Remembered, opinion: Opinion) -> None:
        """Keep what the shadow said, as far as the batch is remembered still."""
        with self._lock:
            context = self._place(_Key(opinion.release, "shadow", None, (), ""), opinion)
            for ring, part in self._parts(batch):
                ring[_SHADOW] = context
                ring[_SHADOW_PREDICTED] = opinion.predicted[part]
                ring[_SHADOW_BIN] = opinion.confidence_bins[part]

    def take(self, prediction_id: str, label: str) -> Given | None:
        """The answer with this id, once: a second label for it finds nothing.

        Raises:
            InvalidInput: the release that answered has no such class; the answer waits on.
        """
        number = self._number(prediction_id)
        with self._lock:
            if not max(0, self._next - self._capacity) <= number < self._next:
                return None
            row = self._ring[:, number % self._capacity]
            context = self._contexts[row[_CONTEXT]]
            if label not in context.classes:
                known = ", ".join(context.classes)
                raise InvalidInput(f"label {label[:64]!r} is not one of {known}")
            if row[_LABELLED]:
                return None
            row[_LABELLED] = 1
            shadow = self._contexts[row[_SHADOW]] if row[_SHADOW] != _NO_CONTEXT else None
            return _given(row.tolist(), context, shadow)

    def _parts(self, batch: Remembered) -> Iterator[tuple[npt.NDArray[np.int32], slice]]:
        """The batch's rows in the ring, and which of its rows they are: it may wrap around."""
        end = batch.first + batch.rows
        number = max(batch.first, self._next - self._capacity)
        while number < end:
            place = number % self._capacity
            rows = min(end - number, self._capacity - place)
            start = number - batch.first
            yield self._ring[:, place : place + rows], slice(start, start + rows)
            number += rows

    def _place(self, key: _Key, opinion: Opinion) -> int:
        """Where the context of a batch stands; it is kept first where it is new."""
        place = self._places.get(key)
        if place is None:
            if len(self._contexts) >= self._most_contexts:
                self._drop_contexts()
            place = self._places[key] = len(self._contexts)
            self._contexts.append(_Context(key, opinion.classes, opinion.bins))
        return place

    def _drop_contexts(self) -> None:
        """Keep those that answers still need, and give them new places."""
        held = self._ring[:, : min(self._next, self._capacity)]
        used = np.union1d(held[_CONTEXT], held[_SHADOW])
        used = used[used != _NO_CONTEXT]
        moved = np.full(len(self._contexts) + 1, _NO_CONTEXT, np.int32)  # the last is for none
        moved[used] = np.arange(len(used))
        for line in (_CONTEXT, _SHADOW):
            held[line] = moved[held[line]]
        self._contexts = [self._contexts[place] for place in used.tolist()]
        self._places = {context.key: place for place, context in enumerate(self._contexts)}
        self._most_contexts = max(MAX_CONTEXTS, 2 * len(self._contexts))

    def _number(self, prediction_id: str) -> int:
        """The answer's number; -1 where the id is not one of this process."""
        if not prediction_id.startswith(self._prefix) or len(prediction_id) > MAX_ID_LENGTH:
            return -1
        digits = prediction_id[len(self._prefix) :]
        try:
            number = int(digits, 16)
        except ValueError:
            return -1
        return number if f"{number:x}" == digits else -1


def _given(row: list[int], mine: _Context, shadow: _Context | None) -> Given:
    given = Given(
        release=mine.key.release,
        arm=mine.key.arm,
        rollout=mine.key.rollout,
        slices=dict(mine.key.slices),
        target=mine.key.target,
        predicted=mine.classes[row[_PREDICTED]],
        confidence_bin=row[_BIN],
        bins=mine.bins,
    )
    if shadow is None:
        return given
    return msgspec.structs.replace(
        given,
        shadow=shadow.key.release,
        shadow_predicted=shadow.classes[row[_SHADOW_PREDICTED]],
        shadow_confidence_bin=row[_SHADOW_BIN],
        shadow_bins=shadow.bins,
    )
