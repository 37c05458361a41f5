"""Answers, and the memory of recent ones, in which late labels find their prediction."""

import bisect
import threading
from collections.abc import Sequence

import msgspec

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


class Remembered(msgspec.Struct, kw_only=True):
    """A batch of answers with consecutive numbers; the shadow's opinion may come later."""

    first: int
    arm: Arm
    rollout: str | None
    slices: dict[str, str]
    target: str
    given: Opinion
    shadow: Opinion | None = None
    labelled: set[int] = msgspec.field(default_factory=set)

    @property
    def rows(self) -> int:
        """Number of answers."""
        return len(self.given.predicted)


class Recent:
    """The latest answers by number; the oldest batch is forgotten first.

    A prediction's id is a token of this process and the answer's number, so that an id of an
    earlier process finds nothing. Batches are kept whole: remembering costs no work per row.
    """

    def __init__(self, capacity: int, token: str) -> None:
        self._capacity = capacity
        self._prefix = f"{token}-"
        self._batches: list[Remembered] = []
        self._rows = 0
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
        batch = Remembered(
            first=self._next,
            arm=arm,
            rollout=rollout,
            slices=slices,
            target=target,
            given=given,
        )
        with self._lock:
            self._next += batch.rows
            self._rows += batch.rows
            self._batches.append(batch)
            if self._rows > 2 * self._capacity:
                self._forget()
        return batch

    def take(self, prediction_id: str, label: str) -> Given | None:
        """The answer with this id, once: a second label for it finds nothing.

        Raises:
            InvalidInput: the release that answered has no such class; the answer waits on.
        """
        number = self._number(prediction_id)
        with self._lock:
            place = bisect.bisect_right(self._batches, number, key=lambda batch: batch.first) - 1
            if number < 0 or place < 0:
                return None
            batch = self._batches[place]
            row = number - batch.first
            if row >= batch.rows:
                return None
            if label not in batch.given.classes:
                known = ", ".join(batch.given.classes)
                raise InvalidInput(f"label {label[:64]!r} is not one of {known}")
            if row in batch.labelled:
                return None
            batch.labelled.add(row)
        return _of_row(batch, row)

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

    def _forget(self) -> None:
        """Drop the oldest batches beyond the capacity; done rarely, since it moves the list."""
        drop = 0
        while self._rows > self._capacity and drop < len(self._batches) - 1:
            self._rows -= self._batches[drop].rows
            drop += 1
        del self._batches[:drop]


def _of_row(batch: Remembered, row: int) -> Given:
    mine, shadow = batch.given, batch.shadow
    given = Given(
        release=mine.release,
        arm=batch.arm,
        rollout=batch.rollout,
        slices=batch.slices,
        target=batch.target,
        predicted=mine.classes[mine.predicted[row]],
        confidence_bin=int(mine.confidence_bins[row]),
        bins=mine.bins,
    )
    if shadow is None:
        return given
    return msgspec.structs.replace(
        given,
        shadow=shadow.release,
        shadow_predicted=shadow.classes[shadow.predicted[row]],
        shadow_confidence_bin=int(shadow.confidence_bins[row]),
        shadow_bins=shadow.bins,
    )
