"""Events on their way into stores: checked as columns, or a few of them row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import columns as checking
from edge_core.features.columns import Checked
from edge_core.features.entities import MISSING, Key, Stamp, Store, Value
from edge_core.features.few import Few, Plain, getter
from edge_core.features.logs import Events
from edge_core.features.requests import Stream, Time

Int64 = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

STAMP_NAMES = ("event_time", "sequence", "arrival")
STAMPS = [Time(name=name) for name in STAMP_NAMES]

Step = tuple[Key, Stamp, Sequence[Value], int]
"""Key, stamp, values and arrival of an event, as a store takes them."""
Take = Callable[[Mapping[str, Plain]], Any]


class Grouped(NamedTuple):
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

    @classmethod
    def of(
        cls, stream: str, by: Sequence[tuple[str, str]], features: list[str], store: Store
    ) -> "Grouped":
        """For a key of pairs: field of the stream, field of the request."""
        keys = [theirs for _, theirs in by]
        takes = [getter(names) for names in (keys, list(store.by), store.fields)]
        return cls(stream, keys, features, store, *takes)


class ManyEvents(NamedTuple):
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

    def steps(self, grouped: Grouped) -> Iterator[Step]:
        """What a store has to take, event by event."""
        store = grouped.store
        columns = [column.tolist() for column in self.columns(store.fields)]
        return zip(
            keys_of(self.fields, store.by, len(self.times_us)),
            zip(self.times_us.tolist(), self.sequence.tolist(), strict=True),
            zip(*columns, strict=True) if columns else [()] * len(self.times_us),
            self.arrived_us.tolist(),
            strict=True,
        )


class FewEvents(NamedTuple):
    """As :class:`ManyEvents`, row by row."""

    stamps: list[dict[str, Plain]]
    fields: list[dict[str, Plain]]

    def arrivals(self) -> list[int]:
        """Of each event."""
        if len(self.stamps) != len(self.fields):
            raise InvalidInput("an event's fields have another length than its times")
        return [row["arrival"] for row in self.stamps]  # type: ignore[misc]  # a moment

    def steps(self, grouped: Grouped) -> Iterator[Step]:
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


class FewReader:
    """Reads few events of one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stamps, self._fields = Few(STAMPS), Few(stream.fields)

    def read(self, events: Events) -> FewEvents | None:
        """None where they have to be checked as columns."""
        stamps = self._stamps.rows(dict(zip(STAMP_NAMES, events[:3], strict=True)))
        fields = self._fields.rows(events.fields)
        return None if stamps is None or fields is None else FewEvents(stamps, fields)


def check_events(stream: Stream, events: Events) -> ManyEvents:
    """Check events as columns.

    Raises:
        InvalidInput: as :func:`edge_core.features.columns.check`.
    """
    fields = checking.check(stream.fields, events.fields)
    stamps = checking.check(STAMPS, dict(zip(STAMP_NAMES, events[:3], strict=True)))
    times, sequence, arrived = (stamps[part].steps for part in STAMP_NAMES)
    if any(len(column.missing) != len(times) for column in fields.values()):
        raise InvalidInput(f"fields of {stream.name} have another length than its times")
    return ManyEvents(times, sequence, arrived, fields)


def keys_of(checked: Mapping[str, Checked], names: Sequence[str], count: int) -> list[Key]:
    """Each row's key; its fields refuse null."""
    return (
        list(zip(*(checked[name].texts for name in names), strict=True)) if names else [()] * count
    )
