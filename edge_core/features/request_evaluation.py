"""From requests and events to a model's inputs, for training, backfill and devices alike.

A request at time t sees the events that arrived before it and whose time is before t. Events and
requests are taken in the order of arrival; an event and a request of the same moment: the event
first. Training gives a whole log to :meth:`RequestEvaluator.replay`, a device calls ``observe`` and
``ask`` as things come: the same code, the same bits.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features import columns as checking
from edge_core.features import request_definition as definitions
from edge_core.features.columns import Checked, Given
from edge_core.features.entities import Dropped, Store, Value
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number, Stream, Time
from edge_core.features.rows import Column, Moments, Numbers, Rows

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

STATE_VERSION = 1
EARLIEST = -(2**62)


class Events(NamedTuple):
    """Events of one stream, in any order."""

    times_us: npt.ArrayLike
    """Event times, int64 [n]."""
    sequence: npt.ArrayLike
    """Sequence numbers: with the time they order a stream's events, and tell repeated ones."""
    arrived_us: npt.ArrayLike
    """When each one came, int64 [n]."""
    fields: Given


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    definition: str
    now_us: int
    stores: list[msgspec.Raw]


class RequestEvaluator:
    """Keeps what a definition's streams need to remember. Not to be shared among threads."""

    def __init__(self, definition: RequestDefinition) -> None:
        """Compile.

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
            store = Store(self._streams[name], tuple(mine for mine, _ in by), features)
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

    def observe(self, stream: str, events: Events) -> None:
        """Take events, in order of arrival.

        Raises:
            InvalidInput: unknown stream or field, an unfit value, or an arrival before that of
                something that came earlier; nothing was taken then.
        """
        prepared = self._prepared(stream, events)
        arrived = prepared.arrived.tolist()
        if arrived and (arrived != sorted(arrived) or arrived[0] < self._now_us):
            raise InvalidInput(
                f"events of {stream} do not come in order of arrival; set the clock right, or "
                "replay them in order"
            )
        for row in range(len(arrived)):
            self._take(prepared, row)

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
        return self._computed(checked, [self._read(checked, row) for row in range(len(times))])

    def replay(self, events: Mapping[str, Events], request: Given) -> Float32:
        """Events and requests of a log, in any order: taken in order of arrival.

        Returns:
            float32 [requests, columns], in the order in which the requests were given.

        Raises:
            InvalidInput: as :meth:`observe` and :meth:`ask`.
        """
        checked = checking.check(self.definition.request.fields, request)
        times = checked[self.definition.request.time].steps
        prepared = [self._prepared(name, given) for name, given in events.items()]
        read: list[list[float | None]] = [[]] * len(times)
        for source, row in _in_order(prepared, times, self._now_us):
            if source < 0:
                read[row] = self._read(checked, row)
            else:
                self._take(prepared[source], row)
        return self._computed(checked, read)

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
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"the state is damaged: {quoted(error)}") from error
        evaluator._now_us = state.now_us
        return evaluator

    def _prepared(self, name: str, events: Events) -> "_Prepared":
        stream = self._streams.get(name)
        if stream is None:
            known = ", ".join(self._streams) or "none"
            raise InvalidInput(f"unknown stream {name[:64]}; the definition has {known}")
        checked = checking.check(stream.fields, events.fields)
        stamps = checking.check(STAMPS, dict(zip(STAMP_NAMES, events[:3], strict=True)))
        times, sequence, arrived = (stamps[part].steps for part in STAMP_NAMES)
        if any(len(column.missing) != len(times) for column in checked.values()):
            raise InvalidInput(f"fields of {name} have another length than its times")
        columns = [_values(stream, field.name, checked[field.name]) for field in stream.fields]
        return _Prepared(
            [grouped.store for grouped in self._stores if grouped.stream == name],
            times.tolist(),
            sequence.tolist(),
            arrived,
            list(zip(*columns, strict=True)) if columns else [()] * len(times),
        )

    def _take(self, events: "_Prepared", row: int) -> None:
        self._now_us = int(events.arrived[row])
        for store in events.stores:
            store.add((events.times[row], events.sequence[row]), events.values[row], self._now_us)

    def _read(self, checked: Mapping[str, Checked], row: int) -> list[float | None]:
        self._now_us = int(checked[self.definition.request.time].steps[row])
        found: list[float | None] = []
        for grouped in self._stores:
            key = tuple(str(checked[name].texts[row]) for name in grouped.keys)
            found += grouped.store.read(key, self._now_us)
        return found

    def _computed(
        self, checked: Mapping[str, Checked], read: Sequence[Sequence[float | None]]
    ) -> Float32:
        columns = {
            field.name: _column(self.definition, field.name, checked[field.name])
            for field in self.definition.request.fields
        }
        names = [name for grouped in self._stores for name in grouped.features]
        values = np.array(read, dtype=np.float64).reshape(len(read), len(names))
        missing = np.isnan(values)
        for place, name in enumerate(names):
            columns[name] = Numbers(values[:, place], missing[:, place])
        return self._rows.compute(columns)


class _Grouped(NamedTuple):
    """One store, the request's fields that hold its key, and the features read from it."""

    stream: str
    keys: list[str]
    features: list[str]
    store: Store


class _Prepared(NamedTuple):
    """Checked events of one stream."""

    stores: list[Store]
    times: list[int]
    sequence: list[int]
    arrived: Int64
    values: Sequence[Sequence[Value]]


STAMP_NAMES = ("event_time", "sequence", "arrival")
STAMPS = [Time(name=name) for name in STAMP_NAMES]


def _in_order(
    events: Sequence[_Prepared], requests: Int64, earliest: int
) -> Iterator[tuple[int, int]]:
    """Place of the stream, or -1 for a request, and row, in order of arrival.

    Among arrivals of one moment events come first, by event time, sequence number and stream.
    """
    moments = np.concatenate([*(entry.arrived for entry in events), requests])
    if len(moments) and int(moments.min()) < earliest:
        raise InvalidInput("the log begins before what was taken already")
    sources = np.repeat([*range(len(events)), -1], [*(len(e.times) for e in events), len(requests)])
    rows = np.concatenate([*(np.arange(len(e.times)) for e in events), np.arange(len(requests))])
    times = np.concatenate([*(np.array(e.times, np.int64) for e in events), requests])
    sequence = np.concatenate(
        [*(np.array(e.sequence, np.int64) for e in events), rows[sources < 0]]
    )
    order = np.lexsort((sources, sequence, times, sources < 0, moments))
    return zip(sources[order].tolist(), rows[order].tolist(), strict=True)


def _values(stream: Stream, name: str, checked: Checked) -> list[Value]:
    if checked.texts:
        return list(checked.texts)
    pairs = zip(checked.steps.tolist(), checked.missing.tolist(), strict=True)
    return [None if missing else step for step, missing in pairs]


def _column(definition: RequestDefinition, name: str, checked: Checked) -> Column:
    (field,) = (field for field in definition.request.fields if field.name == name)
    if isinstance(field, Number):
        return Numbers(checked.steps.astype(np.float64) * field.lsb, checked.missing)
    if isinstance(field, Time):
        return Moments(checked.steps, checked.missing)
    return checked.texts


def _digest(definition: RequestDefinition) -> str:
    return hashlib.sha256(definitions.serialize(definition)).hexdigest()
