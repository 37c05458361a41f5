"""A long part of a log for one store at once: the values and the state of one event at a time.

The short cut holds where nothing is dropped for lack of room, for entities whose events come in
order. The others' are taken one after the other, as a device does.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.features.entities import COMPACTED, MISSING, Entity, Key, Store, Value
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

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]


STEPS = 2**16
"""Events and requests that are looked at together."""


class Arrivals(NamedTuple):
    """Events for one store, in order of arrival."""

    entities: Int64
    """Place of each one's entity among the batch's keys."""
    times_us: Int64
    sequence: Int64
    arrived_us: Int64
    fields: Sequence[Int64 | Objects]
    """Of the store's ``fields``, in order."""
    places: Int64
    """In the order in which the log's events and requests came."""

    def only(self, rows: Bool | Int64 | slice) -> "Arrivals":
        """Some of them."""
        e, t, s, a, fields, p = self
        return Arrivals(e[rows], t[rows], s[rows], a[rows], [f[rows] for f in fields], p[rows])


class Asked(NamedTuple):
    """Requests, in order of time."""

    entities: Int64
    times_us: Int64
    places: Int64

    def only(self, rows: Bool | Int64 | slice) -> "Asked":
        """Some of them."""
        return Asked(*(part[rows] for part in self))


def read_log(store: Store, keys: Sequence[Key], events: Arrivals, asked: Asked) -> Float64:
    """Take events, and read the store's features for requests.

    Args:
        store: what is kept; it goes on from what it holds.
        keys: of the entities.
        events: in order of arrival.
        asked: in order of time.

    Returns:
        float64 [requests, the store's features], NaN where a value is missing.
    """
    found = np.empty((len(asked.places), len(store.features)))
    total = len(events.places) + len(asked.places)
    for begin in range(0, total, STEPS):
        bounds = [begin, begin + STEPS]
        rows = slice(*np.searchsorted(asked.places, bounds).tolist())
        part, requests = (
            events.only(slice(*np.searchsorted(events.places, bounds))),
            asked.only(rows),
        )
        # Codes of the entities of this part alone.
        used = np.zeros(len(keys), np.bool_)
        used[part.entities] = used[requests.entities] = True
        names = [keys[place] for place in np.flatnonzero(used).tolist()]
        codes = np.cumsum(used) - 1
        part = part._replace(entities=codes[part.entities])
        requests = requests._replace(entities=codes[requests.entities])
        read = _at_once(store, names, part, requests)
        found[rows] = _one_by_one(store, names, part, requests) if read is None else read
    return found


def _one_by_one(store: Store, keys: Sequence[Key], events: Arrivals, asked: Asked) -> Float64:
    found = np.empty((len(asked.places), len(store.features)))
    values: list[tuple[Value, ...]] = [()] * len(events.places)
    if events.fields:
        values = list(zip(*(field.tolist() for field in events.fields), strict=True))
    stamps = list(zip(events.times_us.tolist(), events.sequence.tolist(), strict=True))
    entities, arrived = events.entities.tolist(), events.arrived_us.tolist()
    asked_entities, now = asked.entities.tolist(), asked.times_us.tolist()
    order = np.argsort(np.concatenate([events.places, asked.places]))
    for step in order.tolist():
        row = step - len(stamps)
        if row < 0:
            store.add(keys[entities[step]], stamps[step], values[step], arrived[step])
        else:
            found[row] = store.read(keys[asked_entities[row]], now[row])
    return found


def _at_once(store: Store, keys: Sequence[Key], events: Arrivals, asked: Asked) -> Float64 | None:
    """As :func:`_one_by_one`; none, with nothing changed, where the short cut does not hold."""
    ahead = events.times_us > events.arrived_us + store.ahead_us
    expired = ~ahead & (events.times_us < events.arrived_us - store.longest_us)
    fresh = events.only(~(ahead | expired))
    past = _Past.of([store.held.get(key) for key in keys], store.numeric, fresh)
    # Entities with late events are taken by themselves: without evictions none affects another.
    late = past.out_of_order(len(keys))
    orderly, wanted = past.only(~late[past.entities]), asked.only(~late[asked.entities])
    order = _grouped(wanted.entities)
    windows = _Windows(orderly, wanted.only(order), len(keys), store.behind)
    forgotten = windows.forgotten(store.longest_us)
    most = _most_events(store, keys, past, forgotten, late)
    if most is None:
        return None
    read = np.empty((len(order), len(store.features)))
    for place, (feature, lsb) in enumerate(store.features):
        held = (
            orderly.fields[store.fields.index(feature.field)]
            if isinstance(feature, OfField)
            else None
        )
        read[order, place] = windows.values(feature, held, lsb)
    _keep(store, keys, orderly, forgotten)
    store.most_events = max(store.most_events, most)
    store.dropped.ahead += int(ahead.sum())
    store.dropped.expired += int(expired.sum())
    found = np.empty((len(asked.places), len(store.features)))
    found[~late[asked.entities]] = read
    if late.any():
        mine = late[asked.entities]
        found[mine] = _one_by_one(store, keys, fresh.only(late[fresh.entities]), asked.only(mine))
    _touch(store, keys, past, asked)
    return found


class _Past(NamedTuple):
    """Events of many entities: each one's beside one another, in order of arrival."""

    entities: Int64
    times_us: Int64
    sequence: Int64
    fields: Sequence[Int64 | Objects]
    places: Int64
    """As of :class:`Arrivals`; -1 for an event that the store held before."""

    @classmethod
    def of(cls, held: Sequence[Entity | None], numeric: Sequence[bool], fresh: Arrivals) -> "_Past":
        """What entities held, by place, and what is new."""
        there = [(place, entity) for place, entity in enumerate(held) if entity is not None]
        counts = [len(entity.times) for _, entity in there]
        entities = np.repeat(np.array([place for place, _ in there], np.int64), counts)
        order = _grouped(np.concatenate([entities, fresh.entities]))

        def both(before: Sequence[Any], after: Any, dtype: Any = np.int64) -> Any:
            parts = [*(np.array(part, dtype) for part in before), after]
            return np.concatenate(parts)[order]

        return cls(
            np.concatenate([entities, fresh.entities])[order],
            both([entity.times for _, entity in there], fresh.times_us),
            both([entity.sequence for _, entity in there], fresh.sequence),
            [
                both(
                    [entity.fields[place] for _, entity in there],
                    fresh.fields[place],
                    np.int64 if whole else np.object_,
                )
                for place, whole in enumerate(numeric)
            ],
            both([np.full(sum(counts), -1)], fresh.places),
        )

    def out_of_order(self, entities: int) -> Bool:
        """Which entities have an event that came late or twice, bool [entities]."""
        same = self.entities[1:] == self.entities[:-1]
        later = self.times_us[1:] > self.times_us[:-1]
        tied = self.times_us[1:] == self.times_us[:-1]
        later |= tied & (self.sequence[1:] > self.sequence[:-1])
        found = np.zeros(entities, np.bool_)
        found[self.entities[1:][same & ~later]] = True
        return found

    def only(self, rows: Bool) -> "_Past":
        """Some of them."""
        e, t, s, fields, p = self
        return _Past(e[rows], t[rows], s[rows], [f[rows] for f in fields], p[rows])


class _Axis:
    """Entity and time as one number, so that one search finds both."""

    def __init__(self, times_us: Int64, entities: int) -> None:
        """For events at some times, of entities by their number."""
        self._first, last = int(times_us.min(initial=0)), int(times_us.max(initial=0))
        self._steps = last - self._first + 1
        self._sorted: Int64 | None = None
        if entities * (self._steps + 1) >= 2**62:
            self._sorted = np.unique(times_us)
            self._steps = len(self._sorted)

    def ranks(self, entities: Int64, moments_us: Int64) -> Int64:
        """In order of entity, then time; moments after all events share a rank."""
        if self._sorted is not None:
            steps = np.searchsorted(self._sorted, moments_us)
        else:
            steps = np.clip(moments_us, self._first, self._first + self._steps) - self._first
        found: Int64 = entities * (self._steps + 1) + steps
        return found


class _Windows:
    """For each request, its entity's events by their places in the past."""

    def __init__(self, past: _Past, asked: Asked, entities: int, behind: int) -> None:
        """Take requests, those of one entity beside one another; ``behind`` as a store's."""
        self._past = past
        self._asked = asked
        self._axis = _Axis(past.times_us, entities)
        self._ranks = self._axis.ranks(past.entities, past.times_us)
        self._first = np.searchsorted(past.entities, asked.entities)
        steps = 1 + max(past.places.max(initial=0), asked.places.max(initial=0))
        self._arrived = np.searchsorted(
            past.entities * (steps + 1) + past.places + 1,
            asked.entities * (steps + 1) + asked.places + 1,
        )
        self._end = np.minimum(self._before(asked.times_us), self._arrived) - behind
        self._end = np.maximum(self._end, self._first)
        self._starts: dict[int, Int64] = {}

    def _before(self, moments_us: Int64) -> Int64:
        """First event of each request's entity that is not before a moment."""
        ranks = self._axis.ranks(self._asked.entities, moments_us)
        return np.asarray(np.searchsorted(self._ranks, ranks), np.int64)

    def _start(self, within_us: int) -> Int64:
        if within_us not in self._starts:
            before = self._before(self._asked.times_us - within_us)
            self._starts[within_us] = np.minimum(before, self._end)
        return self._starts[within_us]

    def forgotten(self, longest_us: int) -> "_Forgotten":
        """When the store drops events that no later window can hold."""
        expired = np.minimum(self._before(self._asked.times_us - longest_us), self._arrived)
        expired -= self._first
        places, entities, counts = [], [], []
        for entity in np.unique(self._asked.entities[expired >= COMPACTED]).tolist():
            first, last = np.searchsorted(self._asked.entities, [entity, entity + 1])
            mine = expired[first:last].tolist()
            gone = 0
            while (row := bisect_left(mine, gone + COMPACTED)) < len(mine):
                places.append(int(self._asked.places[first + row]))
                entities.append(entity)
                counts.append(mine[row] - gone)
                gone = mine[row]
        return _Forgotten(*(np.array(part, np.int64) for part in (places, entities, counts)))

    def values(self, feature: TimeOperation, held: Int64 | Objects | None, lsb: float) -> Float64:
        """One feature, float64 [requests], NaN where it is missing."""
        start, end = self._start(feature.within_us), self._end
        match feature:
            case CountWithin():
                return np.asarray(end - start, np.float64)
            case TimeSince():
                return self._since(start, end)
            case _:
                assert held is not None
        missing = held == (MISSING if held.dtype == np.int64 else None)
        counts = _between(~missing, start, end)
        there = np.flatnonzero(counts >= feature.min_count)
        found = np.full(len(end), np.nan)
        start, end = start[there], end[there]
        match feature:
            case DistinctWithin():
                found[there] = self._distinct(held, missing, start, end)
            case SumWithin():
                found[there] = _between(np.where(missing, 0, held), start, end) * lsb
            case MeanWithin():
                total = _between(np.where(missing, 0, held), start, end)
                found[there] = total / counts[there] * lsb
            case LastWithin():
                newest = np.maximum.accumulate(np.where(missing, 0, np.arange(len(held))))
                found[there] = held[newest[end - 1]].astype(np.float64) * lsb
        return found

    def _since(self, start: Int64, end: Int64) -> Float64:
        there = end > start
        found = np.full(len(end), np.nan)
        newest = self._past.times_us[end[there] - 1]
        found[there] = (self._asked.times_us[there] - newest) / 1_000_000
        return found

    def _distinct(self, held: Int64 | Objects, missing: Bool, start: Int64, end: Int64) -> Int64:
        """Number of different values in windows whose starts and ends both never fall.

        A value counts by its last event in the window. So an event counts for the requests from
        the first whose window holds it, up to the first whose window holds the value's next event,
        or no longer holds this one.
        """
        there = np.flatnonzero(~missing)
        values = held[there].tolist()
        codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
        marks = np.fromiter(map(codes.__getitem__, values), np.int64, len(values))
        marks += self._past.entities[there] * len(codes)
        order = _grouped(marks)
        again = np.flatnonzero(marks[order[1:]] == marks[order[:-1]])
        following = np.full(len(there), len(held))
        following[order[again]] = there[order[again + 1]]
        first = np.searchsorted(end, there, "right")
        last = np.minimum(
            np.searchsorted(end, following, "right"), np.searchsorted(start, there, "right")
        )
        counted = first < last
        steps = np.bincount(first[counted], minlength=len(end) + 1)
        steps -= np.bincount(last[counted], minlength=len(end) + 1)
        found: Int64 = np.cumsum(steps)[: len(end)]
        return found


def _grouped(numbers: Int64) -> Int64:
    """Order by number, as they came where it is the same."""
    few = numbers.max(initial=0) < 2**16  # which is sorted by digits, five times as fast
    return np.argsort(numbers.astype(np.uint16) if few else numbers, kind="stable")


class _Forgotten(NamedTuple):
    """Each time that a store drops expired events of an entity."""

    places: Int64
    entities: Int64
    counts: Int64


def _between(values: Any, start: Int64, end: Int64) -> Int64:
    """Sums over windows of a column; exact, as definitions keep sums of one entity below 2^53."""
    total = np.concatenate([[0], np.cumsum(values.astype(np.int64))])
    found: Int64 = total[end] - total[start]
    return found


def _most_events(
    store: Store, keys: Sequence[Key], past: _Past, forgotten: _Forgotten, late: Bool
) -> int | None:
    """The most events at any step; none where something has to be dropped for lack of room.

    Entities with late events may drop their own. They are taken to keep all, so that the store
    has room in whatever order they and the others are taken.
    """
    fresh = past.places >= 0
    new = {keys[place] for place in np.unique(past.entities[fresh]).tolist()} - store.held.keys()
    if len(store.held) + len(new) > store.keep.entities:
        return None
    places = np.concatenate([past.places[fresh], forgotten.places])
    changes = np.concatenate([np.ones(int(fresh.sum()), np.int64), -forgotten.counts])
    order = np.argsort(places)
    most = store.events + int(np.cumsum(changes[order]).max(initial=0))
    if most > store.keep.events:
        return None
    counts = np.bincount(past.entities, minlength=len(keys))
    for entity in np.flatnonzero(~late & (counts > store.keep.events_per_entity)).tolist():
        mine = past.entities == entity
        gone = forgotten.entities == entity
        before = np.concatenate([[0], np.cumsum(forgotten.counts[gone])])
        dropped = before[np.searchsorted(forgotten.places[gone], past.places[mine])]
        held = np.arange(1, int(mine.sum()) + 1) - dropped
        if held[past.places[mine] >= 0].max(initial=0) > store.keep.events_per_entity:
            return None
    return most


def _keep(store: Store, keys: Sequence[Key], past: _Past, forgotten: _Forgotten) -> None:
    """Leave the events in the store as if each event and request had come by itself."""
    bounds = np.searchsorted(past.entities, np.arange(len(keys) + 1)).tolist()
    gone = np.zeros(len(keys), np.int64)
    np.add.at(gone, forgotten.entities, forgotten.counts)
    for entity in np.unique(past.entities).tolist():
        held = store.held.get(keys[entity])
        first, last = bounds[entity] + (len(held.times) if held else 0), bounds[entity + 1]
        held = held or store.create(keys[entity])
        held.extend(
            past.times_us[first:last],
            past.sequence[first:last],
            [
                field[first:last].tolist() if field.dtype == np.object_ else field[first:last]
                for field in past.fields
            ],
        )
        held.drop_front(int(gone[entity]))
    store.events += int((past.places >= 0).sum()) - int(forgotten.counts.sum())


def _touch(store: Store, keys: Sequence[Key], past: _Past, asked: Asked) -> None:
    """Leave the entities in the order of their last use."""
    used = np.full(len(keys), -1)
    np.maximum.at(used, asked.entities, asked.places)
    np.maximum.at(used, past.entities, past.places)
    for entity in np.argsort(used).tolist():
        if used[entity] >= 0 and keys[entity] in store.held:
            store.held.move_to_end(keys[entity])
