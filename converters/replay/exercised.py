"""What a log of events and requests has in it that an evaluator could get wrong.

A proof by replay covers the cases that its log has, and no others; so they are counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.features.agreement import Float32
from edge_core.features.graph import columns
from edge_core.features.logs import Events, Log
from edge_core.features.over_time import OverTime
from edge_core.features.playback import Played
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import FieldType

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

HOUR_S = 3600
DROPPED = {
    "duplicate": "duplicate events",
    "expired": "events older than any window",
    "ahead": "events too far ahead",
    "overflow": "events beyond an entity's room",
    "evicted": "events of evicted entities",
}


def count(
    definition: RequestDefinition, log: Log, expected: Float32, played: Played
) -> dict[str, int]:
    """How often each case occurred; those that the definition cannot have are left out."""
    found: dict[str, int] = {}
    if definition.groupings():
        found |= _of_events(definition, log) | _of_drops(played)
    if any(field.null_policy == "keep" for field in _fields(definition)):
        found["missing values"] = _missing(definition, log)
    if any(feature.default is not None for feature in definition.features):
        found["values equal to their default"] = _defaults(definition, expected)
    if definition.zones:
        found |= _of_clocks(definition, log)
    return found | {"restarts": played.restarts}


def _of_events(definition: RequestDefinition, log: Log) -> dict[str, int]:
    found = dict.fromkeys(
        (
            "late events",
            "events that came after a request that followed them",
            "events at a window's start",
            "events at a window's end",
        ),
        0,
    )
    for grouping in definition.groupings():
        events = log.events.get(grouping[0])
        if events is None or not len(np.asarray(events.times_us)):
            continue
        spans = {
            feature.within_us
            for feature in definition.features
            if isinstance(feature, OverTime) and feature.grouping == grouping
        }
        seen = _Seen.of(events, log.request, definition.request.time, grouping[1])
        ways = (
            seen.late(),
            seen.delayed(max(spans)),
            sum(seen.at(span) for span in spans),
            seen.at(0),
        )
        for name, times in zip(found, ways, strict=True):
            found[name] += times
    return found


def _of_drops(played: Played) -> dict[str, int]:
    found = dict.fromkeys(DROPPED.values(), 0)
    for dropped in played.evaluator.dropped.values():
        for name, times in msgspec.structs.asdict(dropped).items():
            found[DROPPED[name]] += times
    return found


class _Seen(NamedTuple):
    """Events and requests of one store, in order of arrival."""

    entities: Int64
    times: Int64
    sequence: Int64
    arrived: Int64
    asked_entities: Int64
    asked: Int64

    @classmethod
    def of(
        cls, events: Events, request: Mapping[str, Any], time: str, by: Sequence[tuple[str, str]]
    ) -> "_Seen":
        times, sequence, arrived = (np.asarray(part, np.int64) for part in events[:3])
        asked = np.asarray(request[time], np.int64)
        codes: dict[tuple[str, ...], int] = {}
        entities = _coded(codes, [events.fields[mine] for mine, _ in by], len(times))
        keys = _coded(codes, [request[theirs] for _, theirs in by], len(asked))
        order = np.lexsort((sequence, times, arrived))
        entities, times, sequence, arrived = (
            part[order] for part in (entities, times, sequence, arrived)
        )
        return cls(entities, times, sequence, arrived, keys, asked)

    def late(self) -> int:
        """Events that came after a newer one of their entity."""
        place = np.empty(len(self.times), np.int64)
        place[np.lexsort((self.sequence, self.times))] = np.arange(len(self.times))
        order = np.argsort(self.entities, kind="stable")
        ranks = self.entities[order] * len(self.times) + place[order]
        return int((ranks < np.maximum.accumulate(ranks)).sum())

    def delayed(self, longest_us: int) -> int:
        """Events that a request came before although it was asked after they happened."""
        if not len(self.asked):
            return 0
        moments = np.unique(self.asked)
        asked = np.unique(self.asked_entities * len(moments) + np.searchsorted(moments, self.asked))
        first = np.searchsorted(moments, self.times, "right")
        last = np.searchsorted(moments, self.arrived, "left")
        own = self.entities * len(moments)
        next_asked = np.searchsorted(asked, own + first)
        before = next_asked < np.searchsorted(asked, own + last)
        moment = moments[asked[np.minimum(next_asked, len(asked) - 1)] % len(moments)]
        return int((before & (moment - self.times <= longest_us)).sum())

    def at(self, before_us: int) -> int:
        """Requests with an event of their entity that happened exactly so long before them."""
        wanted = self.asked - before_us
        moments = np.unique(self.times)
        place = np.minimum(np.searchsorted(moments, wanted), len(moments) - 1)
        there = moments[place] == wanted
        codes = self.entities * len(moments) + np.searchsorted(moments, self.times)
        # The first to come of each entity and moment.
        known, first = np.unique(codes, return_index=True)
        asked = self.asked_entities * len(moments) + place
        found = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        there &= (known[found] == asked) & (self.arrived[first[found]] <= self.asked)
        return int(there.sum())


def _coded(codes: dict[tuple[str, ...], int], fields: Sequence[Any], rows: int) -> Int64:
    if not fields:
        return np.zeros(rows, np.int64)
    keys = zip(*fields, strict=True)
    return np.fromiter((codes.setdefault(key, len(codes)) for key in keys), np.int64, rows)


def _fields(definition: RequestDefinition) -> list[FieldType]:
    return [
        *definition.request.fields,
        *(field for stream in definition.streams for field in stream.fields),
    ]


def _missing(definition: RequestDefinition, log: Log) -> int:
    given = [(definition.request.fields, log.request)]
    given += [
        (stream.fields, log.events[stream.name].fields)
        for stream in definition.streams
        if stream.name in log.events
    ]
    return sum(
        int(_gaps(columns[field.name]).sum())
        for fields, columns in given
        for field in fields
        if field.null_policy == "keep"
    )


def _gaps(column: Any) -> Bool:
    given = np.asarray(column)
    if given.dtype.kind == "f":
        return np.asarray(np.isnan(given))
    if given.dtype == object:
        return np.array([value is None or value != value for value in given.tolist()], np.bool_)
    return np.zeros(len(given), np.bool_)


def _defaults(definition: RequestDefinition, expected: Float32) -> int:
    place = found = 0
    for feature in definition.features:
        if not feature.output:
            continue
        width = len(columns(feature))
        if feature.default is not None:
            mine = expected[:, place : place + width] == np.float32(feature.default)
            found += int(mine.all(axis=1).sum())
        place += width
    return found


def _of_clocks(definition: RequestDefinition, log: Log) -> dict[str, int]:
    asked = np.asarray(log.request[definition.request.time], np.int64) // 1_000_000
    changes = np.array(
        sorted({moment for zone in definition.zones for moment, _ in zone.transitions}), np.int64
    )
    crossed = changes[(changes > asked.min(initial=2**62)) & (changes <= asked.max(initial=0))]
    near = np.searchsorted(changes, asked + HOUR_S) - np.searchsorted(changes, asked - HOUR_S)
    return {
        "changes of clocks": len(crossed),
        "requests within an hour of one": int((near > 0).sum()),
    }
