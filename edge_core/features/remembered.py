"""What an evaluator of requests remembers, as bytes: all of it, or what one request can see.

Bytes may come from a damaged disk or from a device that lies: whatever is read is what a store
could have held, or is refused.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features.columns import MAX_TIME_US
from edge_core.features.entities import MISSING, Dropped, Entity, Key, Store
from edge_core.features.requests import MAX_TEXT

Int64 = npt.NDArray[np.int64]

STATE_VERSION = 2
READ_VERSIONS = (1, 2)

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One store's entities, the one used least recently first, and their events beside another.

    Numbers are int64 in columns (:func:`_packed`); ``times`` and ``sequence`` as steps.
    """

    dropped: Dropped
    keys: list[list[Text]]
    counts: bytes
    """Events of each entity."""
    times: bytes
    sequence: bytes
    fields: list[bytes | list[Text | None]]
    """Of the store's ``fields``, in order."""


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = STATE_VERSION
    definition: str
    now_us: int
    stores: list[Kept]


class _Version(msgspec.Struct):
    v: int


class OldStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A store as version 1 had it: entity by entity."""

    dropped: Dropped
    entities: list[tuple[list[Text], list[int], list[int], list[list[int | Text | None]]]]


class _OldState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    definition: str
    now_us: int
    stores: list[OldStore]


class Remembered(NamedTuple):
    """The newest moment that an evaluator saw, and its stores in order."""

    now_us: int
    stores: list[Kept | OldStore]


def encode(definition: str, now_us: int, stores: Sequence[Kept]) -> bytes:
    """As bytes; ``definition`` is the digest of the evaluator's."""
    return msgspec.msgpack.encode(_State(definition=definition, now_us=now_us, stores=[*stores]))


def decode(definition: str, data: bytes) -> Remembered:
    """Read what :func:`encode` made, this version's or the one before.

    Raises:
        InvalidInput: damaged, of an unknown version, or of another definition.
    """
    try:
        version = msgspec.msgpack.decode(data, type=_Version).v
        if version not in READ_VERSIONS:
            raise InvalidInput(f"the state has version {version}; known are 1 and {STATE_VERSION}")
        state: _OldState | _State
        if version == 1:
            state = msgspec.msgpack.decode(data, type=_OldState)
        else:
            state = msgspec.msgpack.decode(data, type=_State)
        if state.definition != definition:
            raise InvalidInput("the state belongs to another feature definition")
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the state is damaged: {quoted(error)}") from error
    if abs(state.now_us) > MAX_TIME_US:
        raise InvalidInput("the state is damaged: its time is beyond 2**62 microseconds")
    return Remembered(state.now_us, [*state.stores])


def keep(store: Store) -> Kept:
    """Everything that a store holds."""
    parts = [(key, entity, slice(None)) for key, entity in store.held.items()]
    return _kept(store.dropped, store.numeric, parts)


def excerpt(store: Store, keys: Iterable[Key], first_us: int, before_us: int) -> Kept:
    """Some entities' events from ``first_us`` to before ``before_us``: what a request can see."""
    parts = []
    for key in dict.fromkeys(keys):
        entity = store.held.get(key)
        if entity is not None:
            first, last = np.searchsorted(np.asarray(entity.times), [first_us, before_us]).tolist()
            parts.append((key, entity, slice(first, last)))
    return _kept(Dropped(), store.numeric, parts)


def restore(store: Store, kept: Kept | OldStore) -> None:
    """Fill an empty store.

    Raises:
        InvalidInput: it is nothing that the store could have held.
    """
    try:
        _fill(store, _brought_up(store, kept) if isinstance(kept, OldStore) else kept)
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the state is damaged: {quoted(error)}") from error


def _kept(
    dropped: Dropped, numeric: Sequence[bool], parts: Sequence[tuple[Key, Entity, slice]]
) -> Kept:
    def joined(columns: Collection[Any]) -> Int64:
        return np.frombuffer(b"".join(column.tobytes() for column in columns), np.int64)

    fields: list[bytes | list[str | None]] = []
    for place, whole in enumerate(numeric):
        columns: list[Any] = [entity.fields[place][rows] for _, entity, rows in parts]
        fields.append(
            _packed(joined(columns)) if whole else [text for column in columns for text in column]
        )
    times = [entity.times[rows] for _, entity, rows in parts]
    return Kept(
        dropped=msgspec.structs.replace(dropped),
        keys=[list(key) for key, _, _ in parts],
        counts=_packed(np.array([len(column) for column in times], np.int64)),
        times=_packed(joined(times), steps=True),
        sequence=_packed(joined([entity.sequence[rows] for _, entity, rows in parts]), steps=True),
        fields=fields,
    )


def _fill(store: Store, kept: Kept) -> None:
    counts, times = _unpacked(kept.counts), _unpacked(kept.times, steps=True)
    sequence = _unpacked(kept.sequence, steps=True)
    fields = [_field(store, place, field) for place, field in enumerate(kept.fields)]
    keys = [tuple(key) for key in kept.keys]
    lengths = {len(column) for column in (times, sequence, *fields)}
    if len(fields) != len(store.fields) or lengths != {int(counts.sum())}:
        raise ValueError("columns do not fit each other")
    if len(counts) != len(keys) or len(set(keys)) != len(keys):
        raise ValueError("entities do not fit each other")
    if any(len(key) != len(store.by) for key in keys):
        raise ValueError("keys are those of another store")
    most = store.keep
    if len(keys) > most.entities or len(times) > most.events:
        raise ValueError("more entities or events than the definition keeps")
    if not 0 <= counts.min(initial=0) <= counts.max(initial=0) <= most.events_per_entity:
        raise ValueError("more events of one entity than the definition keeps")
    ends = np.cumsum(counts)
    _check_order(times, sequence, ends)
    store.dropped = msgspec.structs.replace(kept.dropped)
    store.held.clear()
    for key, first, last in zip(keys, (ends - counts).tolist(), ends.tolist(), strict=True):
        columns = [column[first:last] for column in fields]
        store.create(key).extend(times[first:last], sequence[first:last], columns)
    store.events = store.most_events = len(times)


def _check_order(times: Int64, sequence: Int64, ends: Int64) -> None:
    later = (times[1:] > times[:-1]) | ((times[1:] == times[:-1]) & (sequence[1:] > sequence[:-1]))
    # The first event of an entity follows the last one of another.
    starts = ends[(ends > 0) & (ends < len(times))]
    later[starts - 1] = True
    if not later.all():
        raise ValueError("events are not in order")
    if len(times) and max(-int(times.min()), int(times.max())) > MAX_TIME_US:
        raise ValueError("a time is beyond 2**62 microseconds")


def _field(store: Store, place: int, field: bytes | list[str | None]) -> Int64 | list[str | None]:
    if place >= len(store.fields) or isinstance(field, bytes) != store.numeric[place]:
        raise ValueError("a field is of another kind")
    if not isinstance(field, bytes):
        return field
    values = _unpacked(field)
    low, high = store.limits[place] or (0, 0)
    known = values[values != MISSING]
    if len(known) and not (low <= known.min() and known.max() <= high):
        raise ValueError(f"{store.fields[place]} is out of its range")
    return values


def _packed(values: Int64, *, steps: bool = False) -> bytes:
    """int64 [n] as n lowest bytes, then n second ones, and so on; so the same bytes meet.

    With ``steps`` each value is the difference to the one before; it wraps around, there and back.
    """
    if steps:
        values = np.diff(values, prepend=np.int64(0))
    return values.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _unpacked(data: bytes, *, steps: bool = False) -> Int64:
    rows = np.frombuffer(data, np.uint8).reshape(8, len(data) // 8)
    values = np.ascontiguousarray(rows.T).view("<i8").reshape(-1).astype(np.int64)
    return np.cumsum(values, dtype=np.int64) if steps else values


def _brought_up(store: Store, old: OldStore) -> Kept:
    """A store of version 1: lists, entity by entity."""
    fields: list[bytes | list[str | None]] = []
    for place, whole in enumerate(store.numeric):
        together: list[Any] = [value for entity in old.entities for value in entity[3][place]]
        if not whole and any(isinstance(value, int) for value in together):
            raise ValueError("a field is of another kind")
        fields.append(_packed(np.array(together, np.int64)) if whole else together)
    counts = [len(entity[1]) for entity in old.entities]
    times = [time for entity in old.entities for time in entity[1]]
    sequence = [number for entity in old.entities for number in entity[2]]
    return Kept(
        dropped=old.dropped,
        keys=[entity[0] for entity in old.entities],
        counts=_packed(np.array(counts, np.int64)),
        times=_packed(np.array(times, np.int64), steps=True),
        sequence=_packed(np.array(sequence, np.int64), steps=True),
        fields=fields,
    )
