"""A log for one store at once: entities by number, events and requests in order of arrival."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.features.batches import Arrivals, Asked, read_log
from edge_core.features.columns import Checked
from edge_core.features.entities import Key
from edge_core.features.taken import Grouped, ManyEvents

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Column = Sequence[str | None]

MAX_TABLE = 2**22
"""Codes up to which a table of all of them is quicker than sorting those that are there."""

Chosen = Callable[[Key], bool]
"""Whether an entity is among those that are read."""


class Read(NamedTuple):
    """What one grouping's features over time are, for some requests."""

    rows: Int64
    """Places of the requests, int64 [n]."""
    values: Float64
    """float64 [n, features], NaN where one is missing."""


class TextNumbers:
    """Numbers for the texts of a log, the same wherever one stands; columns are read once."""

    def __init__(self) -> None:
        self._known: dict[str | None, int] = {}
        self._columns: dict[int, tuple[Column, Int64]] = {}

    def entities(self, columns: Sequence[Sequence[Column]]) -> tuple[list[Key], list[Int64]]:
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

    def _coded(self, texts: Column) -> Int64:
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


def replayed(
    grouped: Grouped,
    log: ManyEvents,
    request: Mapping[str, Checked],
    order: Int64,
    times: Int64,
    texts: TextNumbers,
    chosen: Chosen | None,
) -> Read:
    """What one store says for requests while it takes a log; in the requests' own order.

    Among events that came at one moment the order is event time, then sequence number; an event
    comes before a request of its moment.
    """
    store = grouped.store
    came = np.lexsort((log.sequence, log.times_us, log.arrived_us))
    keys: list[Key] = [()]
    entities, asked_entities = np.zeros(len(came), np.int64), np.zeros(len(times), np.int64)
    if store.by:
        keys, (entities, asked_entities) = texts.entities(
            [[log.fields[n].texts for n in store.by], [request[n].texts for n in grouped.keys]]
        )
    if chosen is not None:
        mine = np.array([chosen(key) for key in keys], np.bool_)
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
    values = read_log(store, keys, events, asked)
    places = np.argsort(order, kind="stable")
    return Read(order[places], values[places])
