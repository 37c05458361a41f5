"""From requests and events to a model's inputs, for training, backfill and devices alike.

A request at time t sees the events that arrived before it and whose time is before t. Events and
requests are taken in the order of arrival; an event and a request of the same moment: the event
first. Training gives a whole log to :meth:`RequestEvaluator.replay`, a device calls ``observe`` and
``ask`` as things come: the same code, the same bits.
"""

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import columns as checking
from edge_core.features import definition as definitions
from edge_core.features import logs, remembered
from edge_core.features.batches import Arrivals, Asked, read_log
from edge_core.features.columns import MAX_TIME_US, Checked, Given
from edge_core.features.entities import MISSING, Dropped, Key, Refusal, Stamp, Store, Value
from edge_core.features.few import Few, Plain, getter
from edge_core.features.logs import Events
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number, Stream, Time
from edge_core.features.rows import Column, Moments, Numbers, Rows, Texts
from edge_core.features.single import Single, Values

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

EARLIEST = -(2**62)
MAX_TABLE = 2**22
"""Codes up to which a table of all of them is quicker than sorting those that are there."""


class Observed(NamedTuple):
    """What became of events that were handed in together."""

    taken: int
    """Those that some feature remembers, or that no feature is about."""
    dropped: Dropped
    """Those that were not taken, by the first cause; and earlier ones that had to go for them, once
    for each way in which features group the stream."""


Step = tuple[Key, Stamp, Sequence[Value], int]
"""Key, stamp, values and arrival of an event, as a store takes them."""


Take = Callable[[Mapping[str, Plain]], Any]


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
            keys = [theirs for _, theirs in by]
            takes = [getter(names) for names in (keys, list(store.by), store.fields)]
            self._stores.append(_Grouped(name, keys, names, store, *takes))
        self._width = len(definition.feature_names)
        self._single = Single(definition, self._rows)
        self._few = Few(definition.request.fields)
        self._few_of = {
            name: (Few(STAMPS), Few(stream.fields)) for name, stream in self._streams.items()
        }
        self._lsbs = [(f.name, f.lsb) for f in definition.request.fields if isinstance(f, Number)]
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
        taken = self._few_events(stream, events) or self._checked(stream, events)
        arrived = taken.arrivals()
        if arrived and (arrived != sorted(arrived) or arrived[0] < self._now_us):
            raise InvalidInput(
                f"events of {stream} do not come in order of arrival; set the clock right, or "
                "replay them in order"
            )
        mine = [grouped for grouped in self._stores if grouped.stream == stream]
        stores = [grouped.store for grouped in mine]
        lost = [(store.dropped.overflow, store.dropped.evicted) for store in stores]
        refusals = [[grouped.store.add(*step) for step in taken.steps(grouped)] for grouped in mine]
        self._now_us = max([self._now_us, *arrived])
        return _observed(len(arrived), refusals, lost, stores)

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
        rows = self._few.rows(request)
        if rows is not None:
            times = [cast("int", row[self.definition.request.time]) for row in rows]
            self._check_order(times)
            return self._ask_each(rows, times)
        checked = checking.check(self.definition.request.fields, request)
        times = checked[self.definition.request.time].steps.tolist()
        self._check_order(times)
        found = []
        for grouped in self._stores:
            keys = _keys(checked, grouped.keys, len(times))
            values = [grouped.store.read(key, now) for key, now in zip(keys, times, strict=True)]
            found.append(np.array(values, np.float64).reshape(len(times), len(grouped.features)))
        self._now_us = max([self._now_us, *times])
        return self._computed(checked, found)

    def _check_order(self, times: list[int]) -> None:
        if times and (times != sorted(times) or times[0] < self._now_us):
            raise InvalidInput("requests do not come in order of time; set the clock right")

    def _ask_each(self, rows: Sequence[dict[str, Plain]], times: list[int]) -> Float32:
        """As :meth:`ask`, for few requests of which each was checked."""
        self._now_us = max([self._now_us, *times])
        complete: list[Values] = []
        for row, now in zip(rows, times, strict=True):
            values: Values = {**row}
            for name, lsb in self._lsbs:
                steps = row[name]
                if steps is not None:
                    values[name] = steps * lsb  # type: ignore[operator]  # of a number
            for grouped in self._stores:
                read = grouped.store.read(grouped.key_of(row), now)
                values.update(zip(grouped.features, read, strict=True))
            complete.append(values)
        found = array("f")
        for place, values in enumerate(complete):
            found.extend(self._single.compute(values, place))
        return np.frombuffer(found, np.float32).reshape(len(rows), self._width)

    def numbers(self, request: Given) -> Float32:
        """As :func:`~edge_core.features.logs.numbers`, and quicker for few requests."""
        rows = self._few.rows(request)
        if rows is None:
            return logs.numbers(self.definition, request)
        found = [
            math.nan if (steps := row[name]) is None else cast("int", steps) * lsb
            for row in rows
            for name, lsb in self._lsbs
        ]
        return np.array(found, np.float32).reshape(len(rows), 1, len(self._lsbs))

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
        found, texts = [], _Texts()
        for grouped in self._stores:
            if grouped.stream not in streams:
                names = [field.name for field in self._streams[grouped.stream].fields]
                streams[grouped.stream] = self._checked(
                    grouped.stream, Events([], [], [], {name: [] for name in names})
                )
            log = streams[grouped.stream]
            read = np.empty((len(times), len(grouped.features)))
            read[order] = _replayed(grouped, log, checked, times[order], order, texts)
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
            remembered.excerpt(
                grouped.store,
                _keys(checked, grouped.keys, len(times)),
                first - grouped.store.longest_us,
                last,
            )
            for grouped in self._stores
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

    def _few_events(self, name: str, events: Events) -> "_FewEvents | None":
        """None where they have to be checked as columns."""
        if name not in self._few_of:
            return None
        stamps, fields = self._few_of[name]
        when = stamps.rows(dict(zip(STAMP_NAMES, events[:3], strict=True)))
        what = fields.rows(events.fields)
        return None if when is None or what is None else _FewEvents(when, what)

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
    lost: Sequence[tuple[int, int]],
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
    for (overflow, evicted), store in zip(lost, stores, strict=True):
        found.overflow += store.dropped.overflow - overflow
        found.evicted += store.dropped.evicted - evicted
    return Observed(taken, found)


class _Grouped(NamedTuple):
    """One store, the request's fields that hold its key, and the features read from it."""

    stream: str
    keys: list[str]
    features: list[str]
    store: Store
    key_of: Take
    """The key in a request's row."""
    event_key_of: Take
    """The key in an event's row."""
    values_of: Take
    """The store's fields in an event's row."""


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

    def arrivals(self) -> list[int]:
        """Of each event."""
        listed: list[int] = self.arrived_us.tolist()
        return listed

    def steps(self, grouped: _Grouped) -> Iterator[Step]:
        """What a store has to take, event by event."""
        store = grouped.store
        columns = [column.tolist() for column in self.columns(store.fields)]
        return zip(
            _keys(self.fields, store.by, len(self.times_us)),
            zip(self.times_us.tolist(), self.sequence.tolist(), strict=True),
            zip(*columns, strict=True) if columns else [()] * len(self.times_us),
            self.arrived_us.tolist(),
            strict=True,
        )


STAMP_NAMES = ("event_time", "sequence", "arrival")
STAMPS = [Time(name=name) for name in STAMP_NAMES]


class _FewEvents(NamedTuple):
    """As :class:`_Log`, row by row."""

    stamps: list[dict[str, Plain]]
    fields: list[dict[str, Plain]]

    def arrivals(self) -> list[int]:
        """Of each event."""
        if len(self.stamps) != len(self.fields):
            raise InvalidInput("an event's fields have another length than its times")
        return [row["arrival"] for row in self.stamps]  # type: ignore[misc]  # a moment

    def steps(self, grouped: _Grouped) -> Iterator[Step]:
        """What a store has to take, event by event."""
        for stamp, row in zip(self.stamps, self.fields, strict=True):
            time, sequence, arrival = stamp.values()
            values: Any = grouped.values_of(row)
            if None in values:
                values = [
                    MISSING if numeric and value is None else value
                    for value, numeric in zip(values, grouped.store.numeric, strict=True)
                ]
            yield grouped.event_key_of(row), (time, sequence), values, arrival  # type: ignore[misc]


def _keys(checked: Mapping[str, Checked], names: Sequence[str], count: int) -> list[Key]:
    # A key's fields refuse null.
    return (
        list(zip(*(checked[name].texts for name in names), strict=True)) if names else [()] * count
    )


class _Texts:
    """Numbers for the texts of a log, the same wherever one stands; columns are read once."""

    def __init__(self) -> None:
        self._known: dict[str | None, int] = {}
        self._columns: dict[int, tuple[Texts, Int64]] = {}

    def entities(self, columns: Sequence[Sequence[Texts]]) -> tuple[list[Key], list[Int64]]:
        """Entities by the columns of their keys, for several tables at once.

        Args:
            columns: of each table those of the key; their lengths differ from table to table.

        Returns:
            The keys, and for each table its rows' places among them, int64 [rows].
        """
        counts = [len(table[0]) for table in columns]
        keys: list[Key] = [()]
        places = np.zeros(sum(counts), np.int64)
        for part in zip(*columns, strict=True):
            codes = np.concatenate([self._coded(texts) for texts in part])
            names = list(self._known)
            both, places = _ranked(places * len(names) + codes, len(keys) * len(names))
            keys = [(*keys[code // len(names)], names[code % len(names)]) for code in both.tolist()]
        return keys, np.split(places, np.cumsum(counts)[:-1])

    def _coded(self, texts: Texts) -> Int64:
        if id(texts) not in self._columns:
            for text in dict.fromkeys(texts):
                self._known.setdefault(text, len(self._known))
            codes = np.fromiter(map(self._known.__getitem__, texts), np.int64, len(texts))
            self._columns[id(texts)] = texts, codes
        return self._columns[id(texts)][1]


def _ranked(codes: Int64, size: int) -> tuple[Int64, Int64]:
    """The different ones of codes below ``size``, rising, and each one's place among them."""
    if size > MAX_TABLE:
        found, places = np.unique(codes, return_inverse=True)
        return found, places
    seen = np.zeros(size, np.bool_)
    seen[codes] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[codes]


def _replayed(
    grouped: _Grouped,
    log: _Log,
    request: Mapping[str, Checked],
    times: Int64,
    order: Int64,
    texts: _Texts,
) -> Float64:
    """What one store says for requests, in order of time, while it takes a log.

    Among events that came at one moment the order is event time, then sequence number; an event
    comes before a request of its moment.
    """
    store = grouped.store
    came = np.lexsort((log.sequence, log.times_us, log.arrived_us))
    arrived = log.arrived_us[came]
    keys: list[Key] = [()]
    entities, asked_entities = np.zeros(len(came), np.int64), np.zeros(len(times), np.int64)
    if store.by:
        keys, (entities, asked_entities) = texts.entities(
            [[log.fields[n].texts for n in store.by], [request[n].texts for n in grouped.keys]]
        )
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
    return read_log(store, keys, events, asked)


def _column(definition: RequestDefinition, name: str, checked: Checked) -> Column:
    (field,) = (field for field in definition.request.fields if field.name == name)
    if isinstance(field, Number):
        return Numbers(checked.steps.astype(np.float64) * field.lsb, checked.missing)
    if isinstance(field, Time):
        return Moments(checked.steps, checked.missing)
    return checked.texts
