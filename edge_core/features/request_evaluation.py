"""From requests and events to a model's inputs, for training, backfill and devices alike.

A request at time t sees the events that arrived before it and whose time is before t. Events and
requests are taken in the order of arrival; an event and a request of the same moment: the event
first. Training gives a whole log to :meth:`RequestEvaluator.replay`, a device calls ``observe`` and
``ask`` as things come: the same code, the same bits.
"""

import copy
import math
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import columns as checking
from edge_core.features import definition as definitions
from edge_core.features import logs, remembered
from edge_core.features.columns import MAX_TIME_US, Checked, Given
from edge_core.features.entities import Dropped, Refusal, Store
from edge_core.features.few import Few, Plain
from edge_core.features.logs import Events
from edge_core.features.over_time import OverTime
from edge_core.features.replay import Chosen, Read, TextNumbers, replayed
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number, Stream, Time
from edge_core.features.rows import Column, Moments, Numbers, Rows
from edge_core.features.single import Single, Values
from edge_core.features.taken import FewReader, Grouped, ManyEvents, check_events, keys_of

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


class Held(NamedTuple):
    """How much a store held."""

    entities: int
    events: int


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
        self._behind = behind
        self._stores = self._empty_stores()
        self._width = len(definition.feature_names)
        self._single = Single(definition, self._rows)
        self._few = Few(definition.request.fields)
        self._few_of = {name: FewReader(stream) for name, stream in self._streams.items()}
        self._lsbs = [(f.name, f.lsb) for f in definition.request.fields if isinstance(f, Number)]
        self._now_us = EARLIEST

    def _empty_stores(self) -> list[Grouped]:
        stores = []
        for name, by in self.definition.groupings():
            features = [
                feature
                for feature in self.definition.features
                if isinstance(feature, OverTime) and feature.grouping == (name, by)
            ]
            keys = tuple(mine for mine, _ in by)
            store = Store(self._streams[name], keys, features, self._behind)
            names = [feature.name for feature in features]
            stores.append(Grouped.of(name, by, names, store))
        return stores

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

    def most_held(self) -> list[Held]:
        """The most that each grouping's store has held since this was asked last."""
        found = [
            Held(len(grouped.store.held), grouped.store.most_events) for grouped in self._stores
        ]
        for grouped in self._stores:
            grouped.store.most_events = grouped.store.events
        return found

    def observe(self, stream: str, events: Events) -> Observed:
        """Take events, in order of arrival.

        Raises:
            InvalidInput: unknown stream or field, an unfit value, or an arrival before that of
                something that came earlier; nothing was taken then.
        """
        few = self._few_of[stream].read(events) if stream in self._few_of else None
        taken = few or self._checked(stream, events)
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
            keys = keys_of(checked, grouped.keys, len(times))
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
        inputs = np.frombuffer(found, np.float32).reshape(len(rows), self._width)
        if not math.isfinite(sum(found)):  # a sum of few float32 is finite where they are
            self._rows.check_finite(inputs)
        return inputs

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
        found, texts = [], TextNumbers()
        for grouped in self._stores:
            if grouped.stream not in streams:
                names = [field.name for field in self._streams[grouped.stream].fields]
                streams[grouped.stream] = self._checked(
                    grouped.stream, Events([], [], [], {name: [] for name in names})
                )
            log = streams[grouped.stream]
            found.append(replayed(grouped, log, checked, order, times, texts, chosen))
        self._now_us = max(int(part.max(initial=self._now_us)) for part in moments)
        return found

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
                keys_of(checked, grouped.keys, len(times)),
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
        return cls(definition).resumed(data)

    def resumed(self, data: bytes) -> Self:
        """As :meth:`restore`, sharing what this one has compiled; this one stays as it is.

        Raises:
            InvalidInput: damaged bytes, or those of another definition.
        """
        found = remembered.decode(self._digest, data)
        evaluator = copy.copy(self)
        evaluator._stores = self._empty_stores()
        if len(found.stores) != len(evaluator._stores):
            raise InvalidInput("the state is damaged: it holds other stores")
        for grouped, kept in zip(evaluator._stores, found.stores, strict=True):
            remembered.restore(grouped.store, kept)
        evaluator._now_us = found.now_us
        return evaluator

    @cached_property
    def _digest(self) -> str:
        return definitions.digest(self.definition)

    def _checked(self, name: str, events: Events) -> ManyEvents:
        stream = self._streams.get(name)
        if stream is None:
            known = ", ".join(self._streams) or "none"
            raise InvalidInput(f"unknown stream {name[:64]}; the definition has {known}")
        return check_events(stream, events)

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


def _column(definition: RequestDefinition, name: str, checked: Checked) -> Column:
    (field,) = (field for field in definition.request.fields if field.name == name)
    if isinstance(field, Number):
        return Numbers(checked.steps.astype(np.float64) * field.lsb, checked.missing)
    if isinstance(field, Time):
        return Moments(checked.steps, checked.missing)
    return checked.texts
