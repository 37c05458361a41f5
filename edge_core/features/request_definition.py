"""A definition of features of requests: their fields, event streams, and what is made of both.

Beside its fields and features it carries time zones, calendars and tables, so that a device needs
nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from edge_core.features import graph
from edge_core.features.carried import Calendar, Table, Zone
from edge_core.features.over_rows import DaysToHoliday, Holiday, Lookup, OfTime, RowOperation
from edge_core.features.over_time import (
    DistinctWithin,
    LastWithin,
    MeanWithin,
    OfField,
    OverTime,
    SumWithin,
    TimeOperation,
)
from edge_core.features.record import Record, duplicates_refused
from edge_core.features.requests import Category, FieldType, Number, Request, Stream, Time

MAX_COLUMNS = 16384
DEFAULT_MEMORY_BYTES = 64 * 1024 * 1024
EXACT = 2**53
"""Whole numbers below it are exact in float64."""

RequestOperation = TimeOperation | RowOperation


class RequestDefinition(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A request's fields, event streams and features, in the order in which arrays hold them."""

    v: Literal[2] = 2
    request: Request
    streams: Annotated[tuple[Stream, ...], msgspec.Meta(max_length=16)] = ()
    zones: Annotated[tuple[Zone, ...], msgspec.Meta(max_length=16)] = ()
    calendars: Annotated[tuple[Calendar, ...], msgspec.Meta(max_length=16)] = ()
    tables: Annotated[tuple[Table, ...], msgspec.Meta(max_length=16)] = ()
    features: Annotated[tuple[RequestOperation, ...], msgspec.Meta(min_length=1, max_length=1024)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_MEMORY_BYTES
    """What kept events may take on a device at most."""

    def __post_init__(self) -> None:
        for what, names in (
            ("stream", [stream.name for stream in self.streams]),
            ("zone", [zone.name for zone in self.zones]),
            ("calendar", [calendar.name for calendar in self.calendars]),
            ("table", [table.name for table in self.tables]),
            ("feature", [feature.name for feature in self.features]),
            ("column", self.feature_names),
        ):
            duplicates_refused(what, names)
        fields = {field.name: field for field in self.request.fields}
        kinds = {name: _kind(field) for name, field in fields.items()}
        _check_graph(self.features, kinds, len(self.feature_names))
        streams = {stream.name: stream for stream in self.streams}
        for feature in self.features:
            if isinstance(feature, OverTime):
                _check_over_time(feature, streams, fields)
            else:
                self._check_carried(feature)
        if self.state_bytes() > self.memory_bytes:
            raise ValueError(
                f"kept events can take {self.state_bytes()} bytes; the definition allows "
                f"{self.memory_bytes}: keep fewer entities or events, or raise memory_bytes"
            )

    @property
    def field_names(self) -> list[str]:
        """Names of the request's fields."""
        return [field.name for field in self.request.fields]

    @property
    def input_names(self) -> list[str]:
        """Names of the request's numbers, the raw values that statistics are kept of."""
        return [field.name for field in self.request.fields if isinstance(field, Number)]

    @property
    def raw_shape(self) -> tuple[int, int]:
        """One sample of the request's numbers."""
        return 1, len(self.input_names)

    @property
    def feature_names(self) -> list[str]:
        """Names of the model's inputs, in order: a feature may have several."""
        return [
            name for feature in self.features if feature.output for name in graph.columns(feature)
        ]

    def groupings(self) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        """Stream and key of each store of events that the features need, in order of use."""
        return list(
            dict.fromkeys(
                feature.grouping for feature in self.features if isinstance(feature, OverTime)
            )
        )

    def state_bytes(self) -> int:
        """Most that kept events can take."""
        streams = {stream.name: stream for stream in self.streams}
        found = 0
        for name, by in self.groupings():
            mine = [
                f for f in self.features if isinstance(f, OverTime) and f.grouping == (name, by)
            ]
            windows = {(f.field if isinstance(f, OfField) else "", f.within_us) for f in mine}
            apart = {(f.field, f.within_us) for f in mine if isinstance(f, DistinctWithin)}
            used = {field for field, _ in windows}
            found += streams[name].memory_bytes(used, len(windows), len(apart))
        return found

    def _check_carried(self, feature: RowOperation) -> None:
        """Zone, calendar and table that a feature names are here."""
        named: list[tuple[str, str, list[str]]] = []
        if isinstance(feature, OfTime) and feature.zone is not None:
            named.append(("zone", feature.zone, [zone.name for zone in self.zones]))
        if isinstance(feature, Holiday | DaysToHoliday):
            calendars = [calendar.name for calendar in self.calendars]
            named.append(("calendar", feature.calendar, calendars))
        if isinstance(feature, Lookup):
            named.append(("table", feature.table, [table.name for table in self.tables]))
        for what, name, known in named:
            if name not in known:
                raise ValueError(f"feature {feature.name}: the definition carries no {what} {name}")


def _check_graph(
    features: Sequence[RequestOperation], given: Mapping[str, graph.Kind], columns: int
) -> None:
    clash = {feature.name for feature in features} & given.keys()
    if clash:
        raise ValueError(f"feature {min(clash)}: a field of the request has this name")
    if not 1 <= columns <= MAX_COLUMNS:
        raise ValueError(f"the features have {columns} columns; 1 to {MAX_COLUMNS} are allowed")
    graph.ordered(features, given)
    graph.check_kinds(features, given)


def _kind(field: FieldType) -> graph.Kind:
    match field:
        case Number():
            return "number"
        case Category():
            return "text"
        case Time():
            return "time"


def _check_over_time(
    feature: OverTime, streams: Mapping[str, Stream], request: Mapping[str, FieldType]
) -> None:
    """Stream, keys and field exist, are of the right kind, and sums stay exact."""
    stream = streams.get(feature.stream)
    if stream is None:
        raise ValueError(f"feature {feature.name}: unknown stream {feature.stream}")
    fields = {field.name: field for field in stream.fields}
    for mine, theirs in feature.by.items():
        for what, field in ((stream.name, fields.get(mine)), ("the request", request.get(theirs))):
            if not isinstance(field, Category) or field.null_policy != "refuse":
                name = mine if what == stream.name else theirs
                raise ValueError(
                    f"feature {feature.name}: {what} has no category {name} that refuses null"
                )
    if not isinstance(feature, OfField):
        return
    field = fields.get(feature.field)
    if field is None:
        raise ValueError(f"feature {feature.name}: {stream.name} has no field {feature.field}")
    if isinstance(feature, SumWithin | MeanWithin | LastWithin) and not isinstance(field, Number):
        raise ValueError(f"feature {feature.name}: {feature.field} is no number")
    if isinstance(field, Number) and stream.keep.events_per_entity * field.largest >= EXACT:
        raise ValueError(
            f"feature {feature.name}: sums of {stream.keep.events_per_entity} events of this range "
            "and lsb are not exact; keep fewer events for each entity or use a coarser lsb"
        )
