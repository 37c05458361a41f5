"""Windows packed for the way, and unpacked by whoever knows the release.

Numbers are varints, names are places in the release's manifest, counts are Rice-coded. The layout
is in docs/telemetry.md.
"""

import hashlib
import re
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidMessage
from edge_core.messages import varints
from edge_core.messages.telemetry import (
    MAX_CONSUMERS,
    TAG_BYTES,
    Arm,
    Cost,
    FallbackCounts,
    PackedWindow,
    PairedCounts,
    StatsWindow,
)
from edge_core.messages.varints import ByteReader
from edge_core.messages.window_schema import WindowSchema
from edge_core.stats import packing
from edge_core.stats.histogram import LARGEST_COUNT

Int64 = npt.NDArray[np.int64]

SENDER_BYTES = 2
MAX_NAME = 64
MAX_NAME_BYTES = 256
"""64 characters of UTF-8."""
ARMS: tuple[Arm, ...] = get_args(Arm)
ARM_BITS, IN_ROLLOUT, HAS_PAIRS, HAS_LABELS, HAS_RARE, HAS_CAUSES = 7, 8, 16, 32, 64, 128
HEX = re.compile(r"^([0-9a-f]{2}){1,32}\Z")
UNSTAMPED = "-"
"""Stands for the epoch until the outbox stamps it."""
PAIRED = PairedCounts.__struct_fields__
CAUSES = FallbackCounts.__struct_fields__


class Head(NamedTuple):
    """What a packed window says before one has to know its release."""

    epoch: str
    sequence: int
    sender: bytes
    release: bytes
    """The beginning of the release's digest."""
    rest: bytes


def sender_tag(device: str) -> bytes:
    """Tells a window that came on another device's topic; no proof of anything."""
    return hashlib.sha256(device.encode()).digest()[:SENDER_BYTES]


def pack(window: StatsWindow, schema: WindowSchema) -> PackedWindow:
    """Pack a window; raises as :func:`body`."""
    return stamped(body(window, schema), window.epoch, window.sequence)


def stamped(packed: bytes, epoch: str, sequence: int) -> PackedWindow:
    """Give a packed body its place in an outbox."""
    as_hex = HEX.match(epoch) is not None
    name = bytes.fromhex(epoch) if as_hex else epoch.encode()
    stamp = varints.unsigned(2 * len(name) + as_hex) + name + varints.unsigned(sequence)
    return PackedWindow(w=stamp + packed)


def body(window: StatsWindow, schema: WindowSchema) -> bytes:
    """Everything of a window but epoch and sequence.

    Raises:
        ValueError: a name is not the release's, or a number is out of range.
    """
    flags = ARMS.index(window.arm)
    flags |= IN_ROLLOUT if window.rollout is not None else 0
    flags |= HAS_PAIRS if window.paired is not None else 0
    flags |= HAS_LABELS if window.right or window.wrong else 0
    rare = window.errors, window.late, window.cost.cached, window.dropped
    flags |= HAS_RARE if any(rare) else 0
    flags |= HAS_CAUSES if window.fallbacks is not None else 0
    causes = msgspec.structs.astuple(window.fallbacks) if window.fallbacks is not None else ()
    parts = [
        sender_tag(window.device),
        schema.tag,
        varints.unsigned(flags),
        varints.signed(window.opened_ms),
        varints.signed(window.closed_ms - window.opened_ms),
        varints.unsigned(schema.targets.index(window.target)),
        *_packed_slices(window.slices, schema),
        varints.text(window.rollout) if window.rollout is not None else b"",
        varints.unsigned(window.rows),
        *(map(varints.unsigned, rare) if any(rare) else ()),
        *map(varints.unsigned, causes),
        *_packed_cost(window.cost, window.rows, window.closed_ms - window.opened_ms),
        *_packed_pairs(window),
        packing.pack(_counts(window, schema), _sizes(schema, flags), window.rows),
    ]
    return b"".join(parts)


def head(packed: PackedWindow) -> Head:
    """The beginning of a window, and what is left; raise :class:`InvalidMessage`."""
    reader = ByteReader(packed.w)
    size, as_hex = divmod(reader.unsigned(), 2)
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidMessage(f"an epoch of {size} bytes; 1 to {MAX_NAME_BYTES} are allowed")
    name = reader.take(size)
    try:
        epoch = name.hex() if as_hex else name.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage("the epoch is not UTF-8") from error
    if len(epoch) > MAX_NAME:
        raise InvalidMessage(f"an epoch of {len(epoch)} characters; the limit is {MAX_NAME}")
    sequence = reader.unsigned()
    if sequence > LARGEST_COUNT:
        raise InvalidMessage(f"sequence number {sequence} is beyond {LARGEST_COUNT}")
    return Head(epoch, sequence, reader.take(SENDER_BYTES), reader.take(TAG_BYTES), reader.rest())


def arm_of(found: Head) -> Arm | None:
    """The arm that a window says, before the rest is read; none where it says none."""
    place = found.rest[0] & ARM_BITS if found.rest else len(ARMS)
    return ARMS[place] if place < len(ARMS) else None


def unpack(found: Head, schema: WindowSchema, device: str) -> StatsWindow:
    """Unpack the rest of what :func:`pack` made with an equal schema.

    Args:
        found: from anywhere; the work is bounded by its bytes and the schema's sizes.
        schema: of the release that it names.
        device: who sent it.

    Raises:
        InvalidMessage: cut short, too long, a place that the release has no name for, or a number
            out of range.
    """
    reader = ByteReader(found.rest)
    flags = reader.unsigned()
    opened = reader.signed()
    length = reader.signed()
    fields: dict[str, Any] = {
        "arm": _named(ARMS, flags & ARM_BITS, "arm"),
        "target": _named(schema.targets, reader.unsigned(), "target"),
        "slices": _slices(reader, schema),
        "rollout": reader.text(MAX_NAME_BYTES) if flags & IN_ROLLOUT else None,
        "rows": reader.unsigned(),
    }
    rare = [reader.unsigned() if flags & HAS_RARE else 0 for _ in range(4)]
    fields["errors"], fields["late"], cached, fields["dropped"] = rare
    if flags & HAS_CAUSES:
        fields["fallbacks"] = {name: reader.unsigned() for name in CAUSES}
    fields["cost"] = {"cached": cached, **_cost(reader, fields["rows"], length)}
    if flags & HAS_PAIRS:
        other = reader.take(TAG_BYTES)
        fields["paired_with"] = other.hex() if any(other) else None
        fields["paired"] = {name: reader.signed() for name in PAIRED}
    sizes = _sizes(schema, flags)
    counts = packing.unpack(reader.rest(), sizes, fields["rows"])
    names = ("counts", "latency", "right", "wrong")
    edges = np.cumsum([sum(schema.sizes), *sizes[len(schema.sizes) :]])[:-1]
    arrays = dict(zip(names, np.split(counts, edges), strict=False))
    fields |= {n: a.astype("<i8").tobytes() if a.any() else b"" for n, a in arrays.items()}
    fields |= {"opened_ms": opened, "closed_ms": opened + length, "device": device}
    fields |= {"epoch": found.epoch, "sequence": found.sequence, "release": schema.release}
    try:
        return msgspec.convert(fields, StatsWindow)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"not a window: {error}") from error


def _sizes(schema: WindowSchema, flags: int) -> tuple[int, ...]:
    return schema.packed_sizes if flags & HAS_LABELS else schema.packed_sizes[:-2]


def _counts(window: StatsWindow, schema: WindowSchema) -> Int64:
    """All counts in one row; an empty array stands for zeros."""
    *_, latency_size, right_size, wrong_size = schema.packed_sizes
    arrays = [
        (window.counts, sum(schema.sizes)),
        (window.latency, latency_size),
    ]
    if window.right or window.wrong:
        arrays += [(window.right, right_size), (window.wrong, wrong_size)]
    return np.concatenate(
        [np.frombuffer(a, "<i8") if a else np.zeros(size, np.int64) for a, size in arrays]
    )


def _packed_slices(slices: dict[str, str], schema: WindowSchema) -> list[bytes]:
    """One number for each declared name: 0 for none, else the value's place, from 1."""
    if unknown := slices.keys() - {name for name, _ in schema.slices}:
        raise ValueError(f"slices {sorted(unknown)} are not declared by {schema.release.name}")
    return [
        varints.unsigned(values.index(slices[name]) + 1 if name in slices else 0)
        for name, values in schema.slices
    ]


def _slices(reader: ByteReader, schema: WindowSchema) -> dict[str, str]:
    found = {}
    for name, values in schema.slices:
        if place := reader.unsigned():
            found[name] = _named(values, place - 1, "value of a slice")
    return found


def _packed_cost(cost: Cost, rows: int, length: int) -> list[bytes]:
    """The span is told as what differs from the window's length, askers as the rows left over."""
    told = cost.sent_bytes or cost.span_ms
    span = [varints.signed(cost.span_ms - length)] if told else []
    parts = [cost.cpu_us, cost.sent_bytes + 1 if told else 0]
    names, left = [], rows
    for name, asked in cost.consumers.items():
        left -= asked
        names.append(varints.text(name) + varints.signed(left))
    count = varints.unsigned(len(cost.consumers))
    return [*map(varints.unsigned, parts), *span, count, *names]


def _cost(reader: ByteReader, rows: int, length: int) -> dict[str, int | dict[str, int]]:
    cpu_us, sent = reader.unsigned(), reader.unsigned()
    span_ms = length + reader.signed() if sent else 0
    count = reader.unsigned()
    if count > MAX_CONSUMERS + 1:
        raise InvalidMessage(f"a window names {count} consumers; the limit is {MAX_CONSUMERS + 1}")
    consumers, before = {}, rows
    for _ in range(count):
        name, left = reader.text(MAX_NAME_BYTES), reader.signed()
        consumers[name] = before - left
        before = left
    return {
        "cpu_us": cpu_us,
        "sent_bytes": max(sent - 1, 0),
        "span_ms": span_ms,
        "consumers": consumers,
    }


def _packed_pairs(window: StatsWindow) -> list[bytes]:
    if window.paired is None:
        return []
    beside = window.paired_with or "00" * TAG_BYTES
    numbers = msgspec.structs.astuple(window.paired)
    return [bytes.fromhex(beside), *map(varints.signed, numbers)]


def _named(names: tuple[str, ...], place: int, what: str) -> str:
    if place >= len(names):
        raise InvalidMessage(f"a window names {what} {place} of {len(names)}")
    return names[place]
