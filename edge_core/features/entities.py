"""What is remembered of each entity's events, and the features over time that are read from it.

One store holds the events of one stream under one key. Everything is whole numbers: sums in
multiples of lsb, times in microseconds; so what is read does not depend on how events came.
"""

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

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
from edge_core.features.requests import Number, Stream

Key = tuple[str, ...]
Value = int | str | None
"""A field's value: a number in multiples of lsb, a text, or none."""
Stamp = tuple[int, int]
"""Event time in microseconds and sequence number: the order of events."""

FIRST = -(2**63)
"""Sequence number before all others."""
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


class _Span:
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
        self.values: Counter[Value] = Counter()

    def take(self, held: Sequence[Value], end: int) -> None:
        """Add what comes before place ``end``."""
        for value in held[self.end : end] if self.field >= 0 else ():
            self._count(value, 1)
        self.end = max(self.end, end)

    def release(self, held: Sequence[Value], start: int) -> None:
        """Take away what comes before place ``start``."""
        for value in held[self.start : min(start, self.end)] if self.field >= 0 else ():
            self._count(value, -1)
        self.start = max(self.start, start)
        self.end = max(self.end, self.start)

    def _count(self, value: Value, sign: int) -> None:
        if value is None:
            return
        self.count += sign
        if isinstance(value, int):
            self.total += sign * value
        if self.distinct:
            self.values[value] += sign
            if not self.values[value]:
                del self.values[value]


class _Entity:
    """One entity's events in order, and its windows."""

    __slots__ = ("fields", "spans", "stamps")

    def __init__(self, fields: int, spans: Sequence[tuple[int, bool]]) -> None:
        self.stamps: list[Stamp] = []
        self.fields: list[list[Value]] = [[] for _ in range(fields)]
        self.spans = [_Span(field, distinct) for field, distinct in spans]

    def held(self, span: _Span) -> Sequence[Value]:
        """The values that a window is over."""
        return self.fields[span.field] if span.field >= 0 else ()

    def insert(self, stamp: Stamp, values: Sequence[Value]) -> bool:
        """Put an event in its place; false where it is there already."""
        place = len(self.stamps)
        if place and stamp <= self.stamps[-1]:
            place = bisect_left(self.stamps, stamp)
            if self.stamps[place] == stamp:
                return False
        for span in self.spans:
            if place < span.end:
                # A late event inside of what was added up already.
                span.clear()
        self.stamps.insert(place, stamp)
        for held, value in zip(self.fields, values, strict=True):
            held.insert(place, value)
        return True

    def drop_front(self, count: int) -> None:
        """Forget the oldest events."""
        for span in self.spans:
            span.release(self.held(span), count)
            span.start -= count
            span.end -= count
        del self.stamps[:count]
        for held in self.fields:
            del held[:count]


class Store:
    """Events of one stream under one key, and the features that are read from them."""

    def __init__(self, stream: Stream, by: Key, features: Sequence[TimeOperation]) -> None:
        """Take a stream, the names of its key's fields, and the features that share both."""
        self._stream = stream
        names = [field.name for field in stream.fields]
        lsbs = {f.name: f.lsb for f in stream.fields if isinstance(f, Number)}
        self._by = [names.index(name) for name in by]
        self._longest_us = max(feature.within_us for feature in features)
        self._ahead_us = round(stream.max_ahead_s * 1_000_000)
        # Features of the same field and window share what is added up.
        places: dict[tuple[int, int], int] = {}
        distinct: set[int] = set()
        self._features: list[tuple[TimeOperation, int, float]] = []
        for feature in features:
            field = names.index(feature.field) if isinstance(feature, OfField) else -1
            place = places.setdefault((field, feature.within_us), len(places))
            if isinstance(feature, DistinctWithin):
                distinct.add(place)
            lsb = lsbs.get(feature.field, 1.0) if isinstance(feature, OfField) else 1.0
            self._features.append((feature, place, lsb))
        self._within = [within for _, within in places]
        self._spans = [(field, place in distinct) for (field, _), place in places.items()]
        self._entities: OrderedDict[Key, _Entity] = OrderedDict()
        self._events = 0
        self.dropped = Dropped()

    def __len__(self) -> int:
        """Number of events that are kept."""
        return self._events

    @property
    def entities(self) -> int:
        """Number of entities that are kept."""
        return len(self._entities)

    def add(self, stamp: Stamp, values: Sequence[Value], arrived_us: int) -> None:
        """Take one event.

        Args:
            stamp: its time and sequence number.
            values: of the stream's fields, in order.
            arrived_us: when it came; never less than for the event or request before.
        """
        if stamp[0] > arrived_us + self._ahead_us:
            self.dropped.ahead += 1
            return
        if stamp[0] < arrived_us - self._longest_us:
            self.dropped.expired += 1
            return
        key = tuple(str(values[place]) for place in self._by)
        entity = self._entities.get(key)
        if entity is None:
            entity = self._entities[key] = _Entity(len(self._stream.fields), self._spans)
        else:
            self._entities.move_to_end(key)
        if not entity.insert(stamp, values):
            self.dropped.duplicate += 1
            return
        self._events += 1
        if len(entity.stamps) > self._stream.keep.events_per_entity:
            entity.drop_front(1)
            self._events -= 1
            self.dropped.overflow += 1
        self._evict()

    def read(self, key: Key, now_us: int) -> list[float | None]:
        """The features of one entity at a moment, in order; none where one is missing.

        Args:
            key: the entity's.
            now_us: the prediction's time; never less than for the request before.
        """
        entity = self._entities.get(key)
        if entity is None:
            return [0.0 if isinstance(f, CountWithin) else None for f, _, _ in self._features]
        self._entities.move_to_end(key)
        end = bisect_left(entity.stamps, (now_us, FIRST))
        for span, within in zip(entity.spans, self._within, strict=True):
            start = bisect_left(entity.stamps, (now_us - within, FIRST), span.start, end)
            held = entity.held(span)
            span.release(held, start)
            span.take(held, end)
        found = [
            _value(feature, entity, entity.spans[place], now_us, lsb)
            for feature, place, lsb in self._features
        ]
        self._forget(entity, now_us)
        return found

    def _forget(self, entity: _Entity, now_us: int) -> None:
        """Drop events that no later window can hold."""
        if entity.stamps[0][0] >= now_us - self._longest_us:
            return
        expired = bisect_left(entity.stamps, (now_us - self._longest_us, FIRST))
        if expired >= COMPACTED:
            entity.drop_front(expired)
            self._events -= expired

    def _evict(self) -> None:
        keep = self._stream.keep
        while len(self._entities) > keep.entities or self._events > keep.events:
            _, entity = self._entities.popitem(last=False)
            self._events -= len(entity.stamps)
            self.dropped.evicted += len(entity.stamps)

    def state(self) -> dict[str, Any]:
        """What has to be remembered, entities used least recently first."""
        return {
            "dropped": msgspec.structs.asdict(self.dropped),
            "entities": [
                [list(key), entity.stamps, entity.fields] for key, entity in self._entities.items()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state` gave."""
        self.dropped = Dropped(**state["dropped"])
        self._entities.clear()
        self._events = 0
        for key, stamps, fields in state["entities"]:
            entity = _Entity(len(self._stream.fields), self._spans)
            entity.stamps = [(int(time), int(sequence)) for time, sequence in stamps]
            entity.fields = [list(values) for values in fields]
            self._entities[tuple(key)] = entity
            self._events += len(entity.stamps)


def _value(
    feature: TimeOperation, entity: _Entity, span: _Span, now_us: int, lsb: float
) -> float | None:
    """One feature of a window; none where it is missing."""
    match feature:
        case CountWithin():
            return float(span.end - span.start)
        case TimeSince():
            if span.start == span.end:
                return None
            return (now_us - entity.stamps[span.end - 1][0]) / 1_000_000
        case _:
            pass
    if span.count < feature.min_count:
        return None
    match feature:
        case SumWithin():
            return span.total * lsb
        case MeanWithin():
            return span.total / span.count * lsb
        case DistinctWithin():
            return float(len(span.values))
        case LastWithin():
            held = entity.fields[span.field]
            value = next(held[p] for p in range(span.end - 1, -1, -1) if held[p] is not None)
            assert isinstance(value, int)
            return value * lsb
