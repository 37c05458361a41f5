"""From requests and events to a model's inputs, for training, backfill and devices alike.

A request at time t sees the events that arrived before it and whose time is before t. Events and
requests are taken in the order of arrival; an event and a request of the same moment: the event
first. Training gives a whole log to :meth:`RequestEvaluator.replay`, a device calls ``observe`` and
``ask`` as things come: the same code, the same bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import columns as checking
from edge_core.features import definition as definitions
from edge_core.features import remembered
from edge_core.features.batches import Arrivals, Asked, read_log
from edge_core.features.columns import MAX_TIME_US, Checked, Given
from edge_core.features.entities import MISSING, Dropped, Key, Refusal, Store, Value
from edge_core.features.logs import Events
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number, Stream, Time
from edge_core.features.rows import Column, Moments, Numbers, Rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

EARLIEST = -(2**62)


class Observed(NamedTuple):
    """What became of events that were handed in together."""

    taken: int
    """Those that some feature remembers, or that no feature is about."""
    dropped: Dropped
    """Those that were not taken, by the first cause; and earlier ones that had to go for them, once
    for each way in which features group the stream."""


class RequestEvaluator:
    """Keeps what a definition's streams need to remember. Not to be shared among threads."""

    def __init__(self, definition: RequestDefinition, *, behind: int = 0) -> None:
        """Compile.

        Args:
            definition: of the features.
            behind: how many of an entity's newest events no feature sees: a check for leakage asks
                what a model is worth without them.

        Raises:
            InvalidBundle: a registered function is not the one that the definition names.
        """
        self.definition = definition
        self._rows = Rows(definition)
        self._streams: dict[str, Stream] = {stream.name: stream for stream in definition.streams}
        self._stores: list[_Grouped] = []
        for name, by in definition.groupings():
            features = [
                feature
                for feature in definition.features
                if isinstance(feature, OverTime) and feature.grouping == (name, by)
            ]
            store = Store(self._streams[name], tuple(mine for mine, _ in by), features, behind)
            names = [feature.name for feature in features]
            self._stores.append(_Grouped(name, [theirs for _, theirs in by], names, store))
        self._now_us = EARLIEST

    @property
    def dropped(self) -> dict[str, Dropped]:
        """What each store dropped, by stream and key."""
        return {
            "/".join([grouped.stream, *grouped.keys]): grouped.store.dropped
            for grouped in self._stores
        }

    @property
    def now_us(self) -> int:
        """Newest arrival or request so far; nothing may come before it."""
        return self._now_us

    def observe(self, stream: str, events: Events) -> Observed:
        """Take events, in order of arrival.

        Raises:
            InvalidInput: unknown stream or field, an unfit value, or an arrival before that of
                something that came earlier; nothing was taken then.
        """
        checked = self._checked(stream, events)
        arrived = checked.arrived_us.tolist()
        if arrived and (arrived != sorted(arrived) or arrived[0] < self._now_us):
            raise InvalidInput(
                f"events of {stream} do not come in order of arrival; set the clock right, or "
                "replay them in order"
            )
        stamps = list(zip(checked.times_us.tolist(), checked.sequence.tolist(), strict=True))
        stores = [grouped.store for grouped in self._stores if grouped.stream == stream]
        before = [msgspec.structs.replace(store.dropped) for store in stores]
        refusals: list[list[Refusal | None]] = []
        for store in stores:
            keys = _keys(checked.fields, store.by, len(arrived))
            values = checked.values(store.fields)
            steps = zip(keys, stamps, values, arrived, strict=True)
            refusals.append([store.add(*step) for step in steps])
        self._now_us = max([self._now_us, *arrived])
        return _observed(len(arrived), refusals, before, stores)

    def ask(self, request: Given) -> Float32:
        """The model's inputs for requests, in order of time.

        Args:
            request: a column for each field of the request.

        Returns:
            float32 [n, columns].

        Raises:
            InvalidInput: unknown or missing fields, unfit values, a time before that of something
                that came earlier, or a missing value without a default.
        """
        checked = checking.check(self.definition.request.fields, request)
        times = checked[self.definition.request.time].steps.tolist()
        if times and (times != sorted(times) or times[0] < self._now_us):
            raise InvalidInput("requests do not come in order of time; set the clock right")
        found = []
        for store, keys in self._asked_keys(checked, len(times)):
            values = [store.read(key, now) for key, now in zip(keys, times, strict=True)]
            found.append(np.array(values, np.float64).reshape(len(times), len(store.features)))
        self._now_us = max([self._now_us, *times])
        return self._computed(checked, found)

    def replay(self, events: Mapping[str, Events], request: Given) -> Float32:
        """Events and requests of a log, in any order: taken in order of arrival.

        Returns:
            float32 [requests, columns], in the order in which the requests were given.

        Raises:
            InvalidInput: as :meth:`observe` and :meth:`ask`.
        """
        checked = checking.check(self.definition.request.fields, request)
        times = checked[self.definition.request.time].steps
        order = np.argsort(times, kind="stable")
        streams = {name: self._checked(name, given) for name, given in events.items()}
        moments = [times, *(log.arrived_us for log in streams.values())]
        if min(int(part.min(initial=self._now_us)) for part in moments) < self._now_us:
            raise InvalidInput("the log begins before what was taken already")
        found = []
        for grouped in self._stores:
            if grouped.stream not in streams:
                names = [field.name for field in self._streams[grouped.stream].fields]
                streams[grouped.stream] = self._checked(
                    grouped.stream, Events([], [], [], {name: [] for name in names})
                )
            log = streams[grouped.stream]
            read = np.empty((len(times), len(grouped.features)))
            read[order] = _replayed(grouped, log, checked, times[order], order)
            found.append(read)
        self._now_us = max([self._now_us, *(int(part.max(initial=0)) for part in moments)])
        return self._computed(checked, found)

    def snapshot(self) -> bytes:
        """What has to be remembered, so that :meth:`restore` goes on to the same bits."""
        kept = [remembered.keep(grouped.store) for grouped in self._stores]
        return remembered.encode(self._digest, self._now_us, kept)

    def excerpt(self, request: Given) -> bytes:
        """What has to be remembered to give the same features for this request alone.

        To be taken before the request is asked; :meth:`restore` reads it. It holds the request's
        entities, and of those the events that a window can see. No sizes are limited.

        Raises:
            InvalidInput: unknown or missing fields, or unfit values.
        """
        checked = checking.check(self.definition.request.fields, request)
        times = checked[self.definition.request.time].steps
        first, last = int(times.min(initial=MAX_TIME_US)), int(times.max(initial=EARLIEST))
        kept = [
            remembered.excerpt(store, keys, first - store.longest_us, last)
            for store, keys in self._asked_keys(checked, len(times))
        ]
        return remembered.encode(self._digest, self._now_us, kept)

    @classmethod
    def restore(cls, definition: RequestDefinition, data: bytes) -> Self:
        """An evaluator that goes on where :meth:`snapshot` or :meth:`excerpt` was taken.

        Raises:
            InvalidInput: damaged bytes, or those of another definition.
        """
        evaluator = cls(definition)
        found = remembered.decode(evaluator._digest, data)
        if len(found.stores) != len(evaluator._stores):
            raise InvalidInput("the state is damaged: it holds other stores")
        for grouped, kept in zip(evaluator._stores, found.stores, strict=True):
            remembered.restore(grouped.store, kept)
        evaluator._now_us = found.now_us
        return evaluator

    @cached_property
    def _digest(self) -> str:
        return definitions.digest(self.definition)

    def _checked(self, name: str, events: Events) -> "_Log":
        stream = self._streams.get(name)
        if stream is None:
            known = ", ".join(self._streams) or "none"
            raise InvalidInput(f"unknown stream {name[:64]}; the definition has {known}")
        fields = checking.check(stream.fields, events.fields)
        stamps = checking.check(STAMPS, dict(zip(STAMP_NAMES, events[:3], strict=True)))
        times, sequence, arrived = (stamps[part].steps for part in STAMP_NAMES)
        if any(len(column.missing) != len(times) for column in fields.values()):
            raise InvalidInput(f"fields of {name} have another length than its times")
        return _Log(times, sequence, arrived, fields)

    def _asked_keys(
        self, checked: Mapping[str, Checked], count: int
    ) -> Iterator[tuple[Store, Sequence[Key]]]:
        for grouped in self._stores:
            yield grouped.store, _keys(checked, grouped.keys, count)

    def _computed(self, checked: Mapping[str, Checked], read: Sequence[Float64]) -> Float32:
        columns = {
            field.name: _column(self.definition, field.name, checked[field.name])
            for field in self.definition.request.fields
        }
        for grouped, values in zip(self._stores, read, strict=True):
            missing = np.isnan(values)
            for place, name in enumerate(grouped.features):
                columns[name] = Numbers(values[:, place], missing[:, place])
        return self._rows.compute(columns)


def _observed(
    count: int,
    refusals: Sequence[Sequence[Refusal | None]],
    before: Sequence[Dropped],
    stores: Sequence[Store],
) -> Observed:
    found = Dropped()
    taken = count
    for causes in zip(*refusals, strict=True):
        if None not in causes:
            taken -= 1
            match causes[0]:
                case "duplicate":
                    found.duplicate += 1
                case "expired":
                    found.expired += 1
                case _:
                    found.ahead += 1
    for earlier, store in zip(before, stores, strict=True):
        found.overflow += store.dropped.overflow - earlier.overflow
        found.evicted += store.dropped.evicted - earlier.evicted
    return Observed(taken, found)


class _Grouped(NamedTuple):
    """One store, the request's fields that hold its key, and the features read from it."""

    stream: str
    keys: list[str]
    features: list[str]
    store: Store


class _Log(NamedTuple):
    """Checked events of one stream."""

    times_us: Int64
    sequence: Int64
    arrived_us: Int64
    fields: Mapping[str, Checked]

    def columns(self, names: Sequence[str]) -> list[Int64 | Objects]:
        """Values of fields, as a store holds them."""
        return [
            np.array(column.texts, np.object_)
            if column.texts
            else np.where(column.missing, MISSING, column.steps)
            for column in (self.fields[name] for name in names)
        ]

    def values(self, names: Sequence[str]) -> list[tuple[Value, ...]]:
        """Values of fields, event by event."""
        columns = [column.tolist() for column in self.columns(names)]
        return list(zip(*columns, strict=True)) if columns else [()] * len(self.times_us)


STAMP_NAMES = ("event_time", "sequence", "arrival")
STAMPS = [Time(name=name) for name in STAMP_NAMES]


def _keys(checked: Mapping[str, Checked], names: Sequence[str], count: int) -> list[Key]:
    # A key's fields refuse null.
    return (
        list(zip(*(checked[name].texts for name in names), strict=True)) if names else [()] * count
    )


def _replayed(
    grouped: _Grouped, log: _Log, request: Mapping[str, Checked], times: Int64, order: Int64
) -> Float64:
    """What one store says for requests, in order of time, while it takes a log.

    Among events that came at one moment the order is event time, then sequence number; an event
    comes before a request of its moment.
    """
    store = grouped.store
    came = np.lexsort((log.sequence, log.times_us, log.arrived_us))
    arrived = log.arrived_us[came]
    codes: dict[Key, int] = {}
    entities = _coded(codes, _keys(log.fields, store.by, len(came)))
    asked_entities = _coded(codes, _keys(request, grouped.keys, len(times)))
    events = Arrivals(
        entities[came],
        log.times_us[came],
        log.sequence[came],
        arrived,
        [column[came] for column in log.columns(store.fields)],
        np.arange(len(came)) + np.searchsorted(times, arrived),
    )
    asked = Asked(
        asked_entities[order],
        times,
        np.arange(len(times)) + np.searchsorted(arrived, times, "right"),
    )
    return read_log(store, list(codes), events, asked)


def _coded(known: dict[Key, int], keys: Sequence[Key]) -> Int64:
    """Each key's place in the order in which they were seen first."""
    return np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64, len(keys))


def _column(definition: RequestDefinition, name: str, checked: Checked) -> Column:
    (field,) = (field for field in definition.request.fields if field.name == name)
    if isinstance(field, Number):
        return Numbers(checked.steps.astype(np.float64) * field.lsb, checked.missing)
    if isinstance(field, Time):
        return Moments(checked.steps, checked.missing)
    return checked.texts
