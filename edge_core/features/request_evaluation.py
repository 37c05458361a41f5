"""From requests and events to a model's inputs, for training, backfill and devices alike.

A request at time t sees the events that arrived before it and whose time is before t. Events and
requests are taken in the order of arrival; an event and a request of the same moment: the event
first. Training gives a whole log to :meth:`RequestEvaluator.replay`, a device calls ``observe`` and
``ask`` as things come: the same code, the same bits.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features import columns as checking
from edge_core.features import definition as definitions
from edge_core.features.batches import Arrivals, Asked, read_log
from edge_core.features.columns import Checked, Given
from edge_core.features.entities import MISSING, Dropped, Key, Store, Value
from edge_core.features.logs import Events
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number, Stream, Time
from edge_core.features.rows import Column, Moments, Numbers, Rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

STATE_VERSION = 1
EARLIEST = -(2**62)


Chosen = Callable[[Key], bool]
"""Whether an entity is among those that are read."""


class Read(NamedTuple):
    """What one grouping's features over time are, for some requests."""

    rows: Int64
    """Places of the requests, int64 [n]."""
    values: Float64
    """float64 [n, features], NaN where one is missing."""


class Held(NamedTuple):
    """How much a store held."""

    entities: int
    events: int


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    definition: str
    now_us: int
    stores: list[msgspec.Raw]


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

    def most_held(self) -> list[Held]:
        """The most that each grouping's store has held since this was asked last."""
        found = [
            Held(len(grouped.store.held), grouped.store.most_events) for grouped in self._stores
        ]
        for grouped in self._stores:
            grouped.store.most_events = grouped.store.events
        return found

    def observe(self, stream: str, events: Events) -> None:
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
        for grouped in self._stores:
            if grouped.stream != stream:
                continue
            keys = _keys(checked.fields, grouped.store.by, len(arrived))
            values = checked.values(grouped.store.fields)
            for step in zip(keys, stamps, values, arrived, strict=True):
                grouped.store.add(*step)
        self._now_us = max([self._now_us, *arrived])

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
        return self._computed(checked, [found.values for found in self._read(events, checked)])

    def read(
        self, events: Mapping[str, Events], request: Given, chosen: Chosen | None = None
    ) -> list[Read]:
        """Take a log as :meth:`replay` does, and say what its groupings' features over time are.

        Groupings do not see one another, nor do their entities, as long as no store has to drop
        any: so they can be read by several evaluators, and put together by :meth:`compute`.

        Args:
            events: as in :meth:`replay`.
            request: as in :meth:`replay`.
            chosen: tells which entities are read; the others' events and requests are left out.

        Returns:
            For each of the definition's groupings, in order: the requests of chosen entities.
        """
        checked = checking.check(self.definition.request.fields, request)
        return self._read(events, checked, chosen)

    def compute(self, request: Given, values: Sequence[Float64]) -> Float32:
        """The model's inputs, from what :meth:`read` says of all entities.

        Args:
            request: a column for each field of the request.
            values: for each grouping, float64 [requests, features].
        """
        return self._computed(checking.check(self.definition.request.fields, request), values)

    def _read(
        self,
        events: Mapping[str, Events],
        checked: Mapping[str, Checked],
        chosen: Chosen | None = None,
    ) -> list[Read]:
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
            found.append(_replayed(grouped, log, checked, order, times, chosen))
        self._now_us = max([self._now_us, *(int(part.max(initial=0)) for part in moments)])
        return found

    def snapshot(self) -> bytes:
        """What has to be remembered, so that :meth:`restore` goes on to the same bits."""
        return msgspec.msgpack.encode(
            {
                "v": STATE_VERSION,
                "definition": _digest(self.definition),
                "now_us": self._now_us,
                "stores": [grouped.store.state() for grouped in self._stores],
            }
        )

    @classmethod
    def restore(cls, definition: RequestDefinition, data: bytes) -> "RequestEvaluator":
        """An evaluator that goes on where :meth:`snapshot` was taken.

        Raises:
            InvalidInput: damaged bytes, or those of another definition.
        """
        evaluator = cls(definition)
        try:
            state = msgspec.msgpack.decode(data, type=_State)
            if (state.v, state.definition) != (STATE_VERSION, _digest(definition)):
                raise InvalidInput("the state belongs to another feature definition")
            for grouped, kept in zip(evaluator._stores, state.stores, strict=True):
                grouped.store.restore(msgspec.msgpack.decode(kept))
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise InvalidInput(f"the state is damaged: {quoted(error)}") from error
        evaluator._now_us = state.now_us
        return evaluator

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
    grouped: _Grouped,
    log: _Log,
    request: Mapping[str, Checked],
    order: Int64,
    times: Int64,
    chosen: Chosen | None,
) -> Read:
    """What one store says for requests while it takes a log; in the requests' own order.

    Among events that came at one moment the order is event time, then sequence number; an event
    comes before a request of its moment.
    """
    store = grouped.store
    came = np.lexsort((log.sequence, log.times_us, log.arrived_us))
    codes: dict[Key, int] = {}
    entities = _coded(codes, _keys(log.fields, store.by, len(came)))
    asked_entities = _coded(codes, _keys(request, grouped.keys, len(times)))
    if chosen is not None:
        mine = np.array([chosen(key) for key in codes], np.bool_)
        came, order = came[mine[entities[came]]], order[mine[asked_entities[order]]]
    arrived, asked_at = log.arrived_us[came], times[order]
    events = Arrivals(
        entities[came],
        log.times_us[came],
        log.sequence[came],
        arrived,
        [column[came] for column in log.columns(store.fields)],
        np.arange(len(came)) + np.searchsorted(asked_at, arrived),
    )
    asked = Asked(
        asked_entities[order],
        asked_at,
        np.arange(len(order)) + np.searchsorted(arrived, asked_at, "right"),
    )
    values = read_log(store, list(codes), events, asked)
    places = np.argsort(order, kind="stable")
    return Read(order[places], values[places])


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


def _digest(definition: RequestDefinition) -> str:
    return hashlib.sha256(definitions.serialize(definition)).hexdigest()
