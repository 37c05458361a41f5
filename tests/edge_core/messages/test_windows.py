"""Windows come back from their packed form, and are refused where they cannot be the release's."""

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidMessage
from edge_core.messages import codec, varints, windows
from edge_core.messages.telemetry import (
    MAX_CONSUMERS,
    TAG_BYTES,
    Arm,
    Cost,
    PackedWindow,
    PairedCounts,
    StatsWindow,
)
from edge_core.messages.varints import ByteReader
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import bits, latency

REF = ReleaseRef(model="m", version="1.0.0", digest="0123456789abcdef" * 4)
SCHEMA = WindowSchema(
    release=REF,
    targets=("cpu", "npu"),
    slices=(("hand", ("weak", "strong")), ("side", ("left", "right"))),
    sizes=(5, 4, 6),
    confidence_size=4,
    epsilon=None,
    values=(8, 1, 1),
)
COUNTS = st.integers(0, 2**40)
SIGNED = st.integers(-(2**40), 2**40)
TIMES = st.integers(0, 2**52)
NAMES = st.text(min_size=1, max_size=64)


def arrays(size: int) -> st.SearchStrategy[bytes]:
    counts = st.lists(SIGNED, min_size=size, max_size=size)
    # All zeros come back as no bytes.
    return counts.map(lambda c: np.array(c, "<i8").tobytes() if any(c) else b"")


COSTS = st.builds(
    Cost,
    cpu_us=COUNTS,
    cached=COUNTS,
    sent_bytes=COUNTS,
    span_ms=COUNTS,
    consumers=st.dictionaries(NAMES, COUNTS, max_size=MAX_CONSUMERS + 1),
)
TAGS = st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES).filter(any).map(bytes.hex)
PAIRS = st.builds(PairedCounts, **dict.fromkeys(PairedCounts.__struct_fields__, SIGNED))
WINDOWS = st.builds(
    StatsWindow,
    device=st.just("d1"),
    epoch=st.one_of(st.binary(min_size=1, max_size=32).map(bytes.hex), NAMES),
    sequence=COUNTS,
    opened_ms=TIMES,
    closed_ms=TIMES,
    release=st.just(REF),
    target=st.sampled_from(SCHEMA.targets),
    arm=st.sampled_from(get_args(Arm)),
    rollout=st.none() | st.text(min_size=1, max_size=32),
    slices=st.fixed_dictionaries(
        {}, optional={n: st.sampled_from(values) for n, values in SCHEMA.slices}
    ),
    rows=COUNTS,
    errors=COUNTS,
    late=COUNTS,
    counts=arrays(15),
    latency=arrays(latency.BINS),
    right=arrays(4),
    wrong=arrays(4),
    paired=PAIRS,
    paired_with=st.none() | TAGS,
    cost=COSTS,
)
PLAIN = StatsWindow(
    device="d1",
    epoch="ab",
    sequence=1,
    opened_ms=1,
    closed_ms=2,
    release=REF,
    target="cpu",
    arm="incumbent",
)
START = windows.pack(PLAIN, SCHEMA).w[: 3 + windows.SENDER_BYTES + TAG_BYTES]


@settings(max_examples=200, deadline=None)
@given(WINDOWS, st.booleans())
def test_a_window_comes_back_as_it_went(window: StatsWindow, alone: bool) -> None:
    if alone:
        window = msgspec.structs.replace(window, paired=None, paired_with=None)
    payload = codec.encode(windows.pack(window, SCHEMA))
    packed = codec.decode_window(payload)
    assert isinstance(packed, PackedWindow)
    assert windows.head(packed)[:4] == (
        window.epoch,
        window.sequence,
        windows.sender_tag("d1"),
        SCHEMA.tag,
    )
    assert windows.unpack(windows.head(packed), SCHEMA, "d1") == window


@pytest.mark.parametrize(
    "change", [{"target": "gpu"}, {"slices": {"side": "top"}}, {"slices": {"age": "old"}}]
)
def test_a_name_that_the_release_has_not_cannot_be_packed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not in|is not in tuple|not declared"):
        windows.pack(msgspec.structs.replace(PLAIN, **change), SCHEMA)


def test_senders_are_told_apart() -> None:
    assert windows.head(windows.pack(PLAIN, SCHEMA)).sender != windows.sender_tag("d2")


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_is_a_window_or_refused(body: bytes) -> None:
    for data in (body, START + body):
        try:
            found = windows.unpack(windows.head(PackedWindow(w=data)), SCHEMA, "d1")
        except InvalidMessage:
            continue
        again = windows.head(windows.pack(found, SCHEMA))
        assert windows.unpack(again, SCHEMA, "d1") == found


def body(*, flags: int = 0, rest: bytes) -> PackedWindow:
    times = varints.signed(0) + varints.signed(0)
    return PackedWindow(w=START + varints.unsigned(flags) + times + rest)


NO_SLICE = b"\0\0"
MANY_ERRORS = b"\0\xff\xff\xff\xff\xff\x7f" + bytes(6)
NOTHING = bits.to_bytes(4 * "01111")


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (PackedWindow(w=b""), "cut short"),
        (PackedWindow(w=START[:-1]), "cut short"),
        (PackedWindow(w=b"\x00"), "epoch of 0 bytes"),
        (PackedWindow(w=varints.unsigned(600) + bytes(300)), "epoch of 300 bytes"),
        (PackedWindow(w=varints.unsigned(2 * 65) + b"e" * 65), "65 characters"),
        (PackedWindow(w=b"\x02\xff"), "epoch is not UTF-8"),
        (PackedWindow(w=b"\x02e" + varints.unsigned(2**41)), "sequence number"),
        (body(flags=7, rest=b""), "arm 7 of 5"),
        (body(rest=b"\x02"), "target 2 of 2"),
        (body(rest=b"\x00\x03"), "value of a slice 2 of 2"),
        (body(rest=b"\x00" + NO_SLICE + b"\0" + b"\0\0\x12"), "18 consumers; the limit is 17"),
        (body(rest=b"\x00" + NO_SLICE + b"\xff" * 9), "more than 9 bytes"),
        (body(flags=8, rest=b"\x00" + NO_SLICE + b"\xff\x7f"), "16383 bytes; the limit is 256"),
        (body(flags=8, rest=b"\x00" + NO_SLICE + b"\x01\xff"), "not UTF-8"),
        (
            body(flags=64, rest=b"\x00" + NO_SLICE + MANY_ERRORS + NOTHING),
            "not a window",
        ),
    ],
)
def test_hostile_bodies_are_refused_by_what_they_say(packed: PackedWindow, words: str) -> None:
    with pytest.raises(InvalidMessage, match=words):
        windows.unpack(windows.head(packed), SCHEMA, "d1")


@given(st.integers(-(2**62), 2**62 - 1))
def test_varints_come_back(value: int) -> None:
    assert ByteReader(varints.signed(value)).signed() == value
    assert ByteReader(varints.unsigned(abs(value))).unsigned() == abs(value)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_varint_out_of_range_is_a_bug(value: int) -> None:
    with pytest.raises(ValueError, match="not between"):
        varints.unsigned(value)
