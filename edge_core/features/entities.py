"""What is remembered of each entity's events, and the features over time that are read from it.

One store holds the events of one stream under one key. Everything is whole numbers: sums in
multiples of lsb, times in microseconds; so what is read does not depend on how events came.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.features.columns import MAX_TIME_US
from edge_core.features.over_time import (
    CountWithin,
    DistinctWithin,
    LastWithin,
    MeanWithin,
    OfField,
    SumWithin,
    TimeOperation,
    TimeSince,
)
from edge_core.features.requests import Category, FieldType, Number, Stream, Time

Int64 = npt.NDArray[np.int64]
Key = tuple[str, ...]
Value = int | str | None
"""A field's value: a number in multiples of lsb, a text, or none; MISSING is a number's none."""
Held: TypeAlias = "array[int] | list[str | None]"
"""The values of one field of an entity's events: numbers, or texts."""
Read: TypeAlias = "Callable[[Entity, int], float | None]"
"""From an entity whose windows are at a moment, and that moment, to a feature."""
Stamp = tuple[int, int]
"""Event time in microseconds and sequence number: the order of events."""

MISSING = -(2**63)
"""Stands for a missing number."""
COMPACTED = 64
"""Expired events at the front of a list that are worth moving the others for."""


class Dropped(msgspec.Struct, frozen=False, kw_only=True):
    """Events that are no longer, or never were, in a store; each is counted once."""

    duplicate: int = 0
    """Same entity, event time and sequence number as one that is there."""
    expired: int = 0
    """So old when they came that no window holds them."""
    ahead: int = 0
    """Further in the future than the stream allows."""
    overflow: int = 0
    """The oldest of an entity that had too many."""
    evicted: int = 0
    """Of the entities used least recently, when the store had too many events or entities."""


Refusal = Literal["duplicate", "expired", "ahead"]
"""Why a store did not take an event, as ``Dropped`` counts it."""


class Span:
    """A window that moves on: a list's part from ``start`` to ``end`` and what it adds up to."""

    __slots__ = ("count", "distinct", "end", "field", "start", "total", "values")

    def __init__(self, field: int, distinct: bool) -> None:
        """Over a field by its place, -1 for none; ``distinct``: whether to count each value."""
        self.field = field
        self.distinct = distinct
        self.clear()

    def clear(self) -> None:
        """Begin again from the front of the list."""
        self.start = self.end = 0
        self.count = self.total = 0
        if self.distinct:
            self.values: Counter[Value] = Counter()

    def take(self, held: Held, end: int) -> None:
        """Add what comes before place ``end``."""
        if end > self.end:
            if self.field >= 0:
                self._count(held[self.end : end], 1)
            self.end = end

    def release(self, held: Held, start: int) -> None:
        """Take away what comes before place ``start``."""
        if start > self.start:
            if self.field >= 0:
                self._count(held[self.start : min(start, self.end)], -1)
            self.start = start
            self.end = max(self.end, start)

    def _count(self, values: Held, sign: int) -> None:
        if isinstance(values, array):
            missing = values.count(MISSING)
            self.total += sign * (sum(values) - missing * MISSING)
        else:
            missing = values.count(None)
        self.count += sign * (len(values) - missing)
        if self.distinct:
            self._tell_apart(values, sign)

    def _tell_apart(self, values: Held, sign: int) -> None:
        for value in values:
            if value is None or value == MISSING:
                continue
            self.values[value] += sign
            if not self.values[value]:
                del self.values[value]


class Entity:
    """One entity's events in order, and its windows."""

    __slots__ = ("fields", "sequence", "spans", "times")

    def __init__(self, numeric: Sequence[bool], spans: Sequence[tuple[int, bool]]) -> None:
        self.times = array("q")
        self.sequence = array("q")
        self.fields: list[Held] = [array("q") if whole else [] for whole in numeric]
        self.spans = [Span(field, distinct) for field, distinct in spans]

    def held(self, span: Span) -> Held:
        """The values that a window is over."""
        return self.fields[span.field] if span.field >= 0 else []

    def insert(self, stamp: Stamp, values: Sequence[Value]) -> bool:
        """Put an event in its place; false where it is there already."""
        times = self.times
        if times and stamp <= (times[-1], self.sequence[-1]):
            return self._insert_late(stamp, values)
        times.append(stamp[0])
        self.sequence.append(stamp[1])
        for held, value in zip(self.fields, values, strict=True):
            held.append(value)  # type: ignore[arg-type]  # of the field's own kind
        return True

    def _insert_late(self, stamp: Stamp, values: Sequence[Value]) -> bool:
        time, sequence = stamp
        first, last = bisect_left(self.times, time), bisect_right(self.times, time)
        place = bisect_left(self.sequence, sequence, first, last)
        if place < last and self.sequence[place] == sequence:
            return False
        for span in self.spans:
            if place < span.end:
                # Inside of what was added up already.
                span.clear()
        self.times.insert(place, time)
        self.sequence.insert(place, sequence)
        for held, value in zip(self.fields, values, strict=True):
            held.insert(place, value)  # type: ignore[arg-type]  # of the field's own kind
        return True

    def extend(self, times: Int64, sequence: Int64, values: Sequence[Any]) -> None:
        """Put events after all others, and begin the windows again."""
        self.times.frombytes(times.tobytes())
        self.sequence.frombytes(sequence.tobytes())
        for held, added in zip(self.fields, values, strict=True):
            if isinstance(held, array):
                held.frombytes(np.asarray(added, np.int64).tobytes())
            else:
                held.extend(added)
        for span in self.spans:
            span.clear()

    def drop_front(self, count: int) -> None:
        """Forget the oldest events."""
        for span in self.spans:
            span.release(self.held(span), count)
            span.start -= count
            span.end -= count
        del self.times[:count], self.sequence[:count]
        for held in self.fields:
            del held[:count]


class Store:
    """Events of one stream under one key, and the features that are read from them."""

    def __init__(
        self, stream: Stream, by: Key, features: Sequence[TimeOperation], behind: int = 0
    ) -> None:
        """Take a stream, the names of its key's fields, and the features that share both.

        Args:
            stream: of the events.
            by: names of the key's fields.
            features: what is read.
            behind: how many of an entity's newest events no feature sees.
        """
        self.behind = behind
        self.keep = stream.keep
        lsbs = {f.name: f.lsb for f in stream.fields if isinstance(f, Number)}
        self.by = by
        self.fields = list(
            dict.fromkeys(feature.field for feature in features if isinstance(feature, OfField))
        )
        kinds = {field.name: field for field in stream.fields}
        self.numeric = [not isinstance(kinds[name], Category) for name in self.fields]
        self.limits = [_limits(kinds[name]) for name in self.fields]
        """Lowest and highest value that each field may hold; none for texts."""
        self.longest_us = max(feature.within_us for feature in features)
        self.ahead_us = round(stream.max_ahead_s * 1_000_000)
        # Features of the same field and window share what is added up.
        places: dict[tuple[int, int], int] = {}
        distinct: set[int] = set()
        self.features: list[tuple[TimeOperation, float]] = []
        """What is read, each with the lsb of its field."""
        self._read: list[Read] = []
        self._nothing: list[float | None] = []
        for feature in features:
            field = self.fields.index(feature.field) if isinstance(feature, OfField) else -1
            place = places.setdefault((field, feature.within_us), len(places))
            if isinstance(feature, DistinctWithin):
                distinct.add(place)
            lsb = lsbs.get(feature.field, 1.0) if isinstance(feature, OfField) else 1.0
            self.features.append((feature, lsb))
            self._read.append(_reading(feature, place, lsb))
            self._nothing.append(0.0 if isinstance(feature, CountWithin) else None)
        self.within_us = [within for _, within in places]
        self._spans = [(field, place in distinct) for (field, _), place in places.items()]
        self.held: OrderedDict[Key, Entity] = OrderedDict()
        """Entities, the one used least recently first."""
        self.events = 0
        self.most_events = 0
        """The most that there were at once; whoever looks at it may set it back."""
        self.dropped = Dropped()

    def add(
        self, key: Key, stamp: Stamp, values: Sequence[Value], arrived_us: int
    ) -> Refusal | None:
        """Take one event, or say why not.

        Args:
            key: the entity's.
            stamp: its time and sequence number.
            values: of the store's ``fields``, in order.
            arrived_us: when it came; never less than for the event or request before.
        """
        if stamp[0] > arrived_us + self.ahead_us:
            self.dropped.ahead += 1
            return "ahead"
        if stamp[0] < arrived_us - self.longest_us:
            self.dropped.expired += 1
            return "expired"
        entity = self.held.get(key) or self.create(key)
        self.held.move_to_end(key)
        if not entity.insert(stamp, values):
            self.dropped.duplicate += 1
            return "duplicate"
        self.events += 1
        if len(entity.times) > self.keep.events_per_entity:
            entity.drop_front(1)
            self.events -= 1
            self.dropped.overflow += 1
        self.most_events = max(self.most_events, self.events)
        if len(self.held) > self.keep.entities or self.events > self.keep.events:
            self._evict()
        return None

    def create(self, key: Key) -> Entity:
        """Begin to keep events of an entity."""
        entity = self.held[key] = Entity(self.numeric, self._spans)
        return entity

    def read(self, key: Key, now_us: int) -> list[float | None]:
        """The features of one entity at a moment, in order; none where one is missing.

        Args:
            key: the entity's.
            now_us: the prediction's time; never less than for the request before.
        """
        entity = self.held.get(key)
        if entity is None:
            return self._nothing
        self.held.move_to_end(key)
        times = entity.times
        end = max(0, bisect_left(times, now_us) - self.behind)
        for span, within in zip(entity.spans, self.within_us, strict=True):
            start = bisect_left(times, now_us - within, span.start, end)
            if start > span.start or end > span.end:
                held = entity.held(span)
                span.release(held, start)
                span.take(held, end)
        found = [read(entity, now_us) for read in self._read]
        self._forget(entity, now_us)
        return found

    def _forget(self, entity: Entity, now_us: int) -> None:
        """Drop events that no later window can hold."""
        times, until = entity.times, now_us - self.longest_us
        if len(times) >= COMPACTED and times[COMPACTED - 1] < until:
            expired = bisect_left(times, until)
            entity.drop_front(expired)
            self.events -= expired

    def _evict(self) -> None:
        while len(self.held) > self.keep.entities or self.events > self.keep.events:
            _, entity = self.held.popitem(last=False)
            self.events -= len(entity.times)
            self.dropped.evicted += len(entity.times)


def _limits(field: FieldType) -> tuple[int, int] | None:
    match field:
        case Number():
            return round(field.low / field.lsb), round(field.high / field.lsb)
        case Time():
            return -MAX_TIME_US, MAX_TIME_US
        case Category():
            return None


def _reading(feature: TimeOperation, place: int, lsb: float) -> Read:
    """How one feature is read from an entity's windows; none where it is missing.

    Args:
        feature: to be read.
        place: of its window among the entity's.
        lsb: of its field.
    """
    match feature:
        case CountWithin():
            return lambda entity, _: float(entity.spans[place].end - entity.spans[place].start)
        case TimeSince():
            return lambda entity, now_us: _since(entity, entity.spans[place], now_us)
        case _:
            least = feature.min_count
            value = _valued(feature, lsb)

    def read(entity: Entity, _: int) -> float | None:
        span = entity.spans[place]
        return value(entity, span) if span.count >= least else None

    return read


def _since(entity: Entity, span: Span, now_us: int) -> float | None:
    if span.start == span.end:
        return None
    return (now_us - entity.times[span.end - 1]) / 1_000_000


def _valued(feature: OfField, lsb: float) -> Callable[[Entity, Span], float]:
    """A feature of a window with enough values."""
    match feature:
        case SumWithin():
            return lambda _, span: span.total * lsb
        case MeanWithin():
            return lambda _, span: span.total / span.count * lsb
        case DistinctWithin():
            return lambda _, span: float(len(span.values))
        case LastWithin():
            return lambda entity, span: _newest(entity, span) * lsb
        case _:
            raise TypeError(f"{type(feature).__name__} is no operation on a field")


def _newest(entity: Entity, span: Span) -> int:
    held = entity.fields[span.field]
    assert isinstance(held, array)
    return next(held[place] for place in range(span.end - 1, -1, -1) if held[place] != MISSING)
