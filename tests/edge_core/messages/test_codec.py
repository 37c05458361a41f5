"""Messages come back as they went, and nothing else comes in."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidMessage
from edge_core.messages import codec
from edge_core.messages.command import Command, FallbackOff, FallbackOn
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import (
    Arm,
    CommandOutcome,
    FallbackMode,
    Online,
    PackedWindow,
    Placement,
    Refusal,
    ReportedState,
    Sample,
    UpdateState,
)
from edge_core.release import ReleaseRef

NAMES = st.text(min_size=1, max_size=64)
TEXTS = st.text(max_size=512)
COUNTS = st.integers(0, 2**40)
TIMES = st.integers(-(2**53), 2**53)
ARMS = st.sampled_from(get_args(Arm))
SLICES = st.dictionaries(NAMES, NAMES, max_size=3)
BYTES = st.binary(max_size=200)
REFS = st.builds(
    lambda model, parts, digest: ReleaseRef(
        model=model, version=".".join(map(str, parts)), digest=digest.hex()
    ),
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    st.tuples(*[st.integers(0, 999_999)] * 3),
    st.binary(min_size=32, max_size=32),
)
MAYBE_REF = st.none() | REFS

MESSAGES: dict[type[msgspec.Struct], st.SearchStrategy[Any]] = {
    PackedWindow: st.builds(PackedWindow, w=BYTES),
    Sample: st.builds(
        Sample,
        device=NAMES,
        prediction_id=NAMES,
        at_ms=TIMES,
        release=REFS,
        target=NAMES,
        arm=ARMS,
        slices=SLICES,
        definition=st.none() | st.from_regex(r"^[0-9a-f]{64}\Z"),
        window=BYTES,
        request=BYTES,
        memory=BYTES,
        features=BYTES,
        scores=BYTES,
    ),
    ReportedState: st.builds(
        ReportedState,
        device=NAMES,
        at_ms=TIMES,
        target=NAMES,
        runtime=TEXTS,
        slices=SLICES,
        desired_revision=COUNTS,
        active=MAYBE_REF,
        previous=MAYBE_REF,
        shadow=MAYBE_REF,
        update=st.sampled_from(get_args(UpdateState)),
        reason=TEXTS,
        refusals=st.lists(st.builds(Refusal, release=REFS, reason=TEXTS, at_ms=TIMES), max_size=3),
        fallbacks=st.lists(
            st.builds(
                FallbackMode,
                model=NAMES,
                cause=st.sampled_from(["breaker", "command"]),
                reason=TEXTS,
                since_ms=TIMES,
                until_ms=st.none() | TIMES,
            ),
            max_size=2,
        ),
        commands=st.lists(
            st.builds(
                CommandOutcome,
                id=NAMES,
                outcome=st.sampled_from(["done", "expired", "superseded", "refused"]),
                detail=TEXTS,
                at_ms=TIMES,
            ),
            max_size=2,
        ),
        placement=st.none()
        | st.builds(
            Placement,
            operators=st.dictionaries(TEXTS, COUNTS, max_size=2),
            wanted=st.lists(TEXTS, max_size=2),
            absent=st.lists(TEXTS, max_size=2),
            fell_back=COUNTS,
        ),
        shadow_dropped=COUNTS,
    ),
    Online: st.builds(Online, device=NAMES, online=st.booleans()),
    Command: st.builds(
        lambda issued, valid, **fields: Command(
            issued_ms=issued, expires_ms=issued + valid, **fields
        ),
        issued=st.integers(0, 2**52),
        valid=st.integers(1, 7 * 86_400_000),
        id=NAMES,
        action=st.builds(
            FallbackOn,
            model=NAMES,
            reason=TEXTS,
            until_ms=st.none() | st.integers(0, 2**53),
        )
        | st.builds(FallbackOff, model=NAMES, reason=TEXTS),
    ),
    DesiredState: st.builds(
        DesiredState,
        revision=COUNTS,
        issued_ms=TIMES,
        active=MAYBE_REF,
        shadow=MAYBE_REF,
        arm=ARMS,
        rollout=st.none() | NAMES,
    ),
}
REF = ReleaseRef(model="m", version="1.0.0", digest="0" * 64)
EXAMPLES: list[Any] = [
    PackedWindow(w=b"rest"),
    Sample(
        device="d",
        prediction_id="p",
        at_ms=1,
        release=REF,
        target="t",
        arm="control",
        definition="a" * 64,
        window=b"\0" * 4,
        features=b"",
        scores=b"",
    ),
    ReportedState(
        device="d",
        at_ms=1,
        target="t",
        runtime="r",
        active=REF,
        refusals=[Refusal(release=REF, reason="too large", at_ms=1)],
    ),
    Online(device="d", online=True),
    DesiredState(revision=1, issued_ms=1, active=REF),
    Command(id="c", issued_ms=1, expires_ms=2, action=FallbackOn(model="m", until_ms=3)),
]
KINDS = [type(example) for example in EXAMPLES]


def fields(message: object) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return decoded


def packed(message: object, **changes: object) -> bytes:
    return msgspec.msgpack.encode(fields(message) | changes)


def test_every_kind_is_tried_here() -> None:
    assert set(codec.CURRENT) == set(get_args(codec.Message)) == set(MESSAGES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_message_comes_back_as_it_went(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    assert codec.decode(kind, codec.encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES)
@pytest.mark.parametrize("version", [0, 3, -1, 2**64 - 1])
def test_an_unknown_version_is_refused_by_name(message: Any, version: int) -> None:
    kind = type(message)
    known = {1: "is 1", 2: "are 1 and 2"}[codec.CURRENT[kind]]
    words = f"{kind.__name__} has version {version}; known {known}"
    with pytest.raises(InvalidMessage, match=words):
        codec.decode(kind, packed(message, v=version))


@pytest.mark.parametrize("kind", KINDS)
def test_the_version_is_judged_before_anything_else_is_read(kind: type[Any]) -> None:
    later = msgspec.msgpack.encode({"v": 3, "device": ["of", "another", "shape"]})
    with pytest.raises(InvalidMessage, match="has version 3"):
        codec.decode(kind, later)


@pytest.mark.parametrize("message", EXAMPLES)
@pytest.mark.parametrize("version", ["1", 1.0, True, None, b"1", [1]])
def test_a_version_that_is_no_integer_is_refused(message: Any, version: object) -> None:
    with pytest.raises(InvalidMessage, match=r"at `\$\.v`"):
        codec.decode(type(message), packed(message, v=version))


@pytest.mark.parametrize("message", EXAMPLES)
def test_a_field_without_a_default_and_the_version_are_needed(message: Any) -> None:
    kind = type(message)
    needed = {info.name for info in msgspec.structs.fields(kind) if info.required} | {"v"}
    for name in fields(message):
        document = fields(message)
        del document[name]
        data = msgspec.msgpack.encode(document)
        if name in needed:
            with pytest.raises(InvalidMessage, match=f"`{name}`"):
                codec.decode(kind, data)
        else:
            codec.decode(kind, data)


@pytest.mark.parametrize("message", EXAMPLES)
def test_an_unknown_field_is_refused(message: Any) -> None:
    with pytest.raises(InvalidMessage, match="unknown field `surprise`"):
        codec.decode(type(message), packed(message, surprise=1))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (EXAMPLES[1], {"release": fields(REF) | {"surprise": 1}}),
        (EXAMPLES[2], {"refusals": [fields(EXAMPLES[2].refusals[0]) | {"surprise": 1}]}),
        (EXAMPLES[4], {"active": fields(REF) | {"surprise": 1}}),
    ],
)
def test_an_unknown_field_is_refused_inside_as_well(message: Any, change: Any) -> None:
    with pytest.raises(InvalidMessage, match="unknown field `surprise`"):
        codec.decode(type(message), packed(message, **change))


@pytest.mark.parametrize("message", EXAMPLES)
def test_one_kind_is_never_taken_for_another(message: Any) -> None:
    for kind in KINDS:
        if kind is not type(message):
            with pytest.raises(InvalidMessage, match=f"not a {kind.__name__}"):
                codec.decode(kind, packed(message, v=codec.CURRENT[kind]))


WINDOW, SAMPLE, STATE, ONLINE, DESIRED, COMMAND = EXAMPLES
ON = fields(COMMAND.action)
BAD_REF = {"model": "m", "version": "1.0.0", "digest": "0" * 64}


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (WINDOW, {"w": None}),
        (SAMPLE, {"device": ""}),
        (SAMPLE, {"device": "d" * 65}),
        (SAMPLE, {"device": b"d"}),
        (SAMPLE, {"arm": "another"}),
        (SAMPLE, {"slices": {"": "left"}}),
        (SAMPLE, {"slices": {"side": "l" * 65}}),
        (SAMPLE, {"at_ms": 1.5}),
        (SAMPLE, {"at_ms": 2**53 + 1}),
        (SAMPLE, {"release": None}),
        (SAMPLE, {"release": BAD_REF | {"model": "../m"}}),
        (SAMPLE, {"release": BAD_REF | {"version": "1.0"}}),
        (SAMPLE, {"release": BAD_REF | {"version": "01.0.0"}}),
        (SAMPLE, {"release": BAD_REF | {"digest": "0" * 63}}),
        (SAMPLE, {"release": BAD_REF | {"digest": "0" * 64 + "\n"}}),
        (SAMPLE, {"window": [0.0]}),
        (SAMPLE, {"prediction_id": ""}),
        (STATE, {"update": "exploded"}),
        (STATE, {"reason": "x" * 513}),
        (STATE, {"refusals": [{"release": BAD_REF, "reason": "x" * 513, "at_ms": 1}]}),
        (ONLINE, {"online": 1}),
        (DESIRED, {"revision": -1}),
        (DESIRED, {"active": {}}),
        (DESIRED, {"issued_ms": None}),
        (COMMAND, {"id": ""}),
        (COMMAND, {"issued_ms": -1}),
        (COMMAND, {"expires_ms": 1}),
        (COMMAND, {"expires_ms": 2 + 7 * 86_400_000}),
        (COMMAND, {"action": ON | {"type": "reboot"}}),
        (COMMAND, {"action": ON | {"model": ""}}),
        (COMMAND, {"action": ON | {"reason": "x" * 513}}),
        (COMMAND, {"action": ON | {"until_ms": 2**53 + 1}}),
        (COMMAND, {"action": {"type": "fallback_off", "model": "m", "until_ms": 3}}),
        (STATE, {"fallbacks": [{"model": "m", "cause": "mood", "since_ms": 1}]}),
        (WINDOW, {"fallbacks": {"missing": -1}}),
        (WINDOW, {"dropped": -1}),
    ],
)
def test_a_field_out_of_range_is_refused(message: Any, change: dict[str, Any]) -> None:
    codec.decode(type(message), packed(message))
    with pytest.raises(InvalidMessage, match=f"not a {type(message).__name__}: "):
        codec.decode(type(message), packed(message, **change))


def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    empty = len(codec.encode(msgspec.structs.replace(SAMPLE, window=bytes(60_000)))) - 60_000
    fitting = msgspec.structs.replace(SAMPLE, window=bytes(codec.MAX_MESSAGE_BYTES - empty))
    data = codec.encode(fitting)
    assert len(data) == codec.MAX_MESSAGE_BYTES == 64 * 1024
    assert codec.decode(Sample, data) == fitting
    larger = msgspec.structs.replace(fitting, window=fitting.window + b"\0")
    for refused in (
        lambda: codec.encode(larger),
        lambda: codec.decode(Sample, msgspec.msgpack.encode(larger)),
    ):
        with pytest.raises(InvalidMessage, match="Sample has 65537 bytes; the limit is 65536"):
            refused()


ONLINE_BYTES = codec.encode(ONLINE)
DEEP = b"\x91" * 60_000 + b"\xc0"
NO_MESSAGES = {
    "nothing": b"",
    "cut": ONLINE_BYTES[:-1],
    "too long": ONLINE_BYTES + b"\0",
    "a vast map": b"\xdf\xff\xff\xff\xff",
    "a vast list": b"\xdd\xff\xff\xff\xff",
    "vast bytes": b"\xc6\xff\xff\xff\xff",
    "deep": DEEP,
    "deep before the version": b"\x84\xa1x" + DEEP + ONLINE_BYTES[1:],
    "deep after the version": b"\x84" + ONLINE_BYTES[1:] + b"\xa1x" + DEEP,
    "text that is not UTF-8": ONLINE_BYTES.replace(b"\xa1d", b"\xa1\xff"),
    "two versions": b"\x84" + ONLINE_BYTES[1:] + b"\xa1v\x02",
    "a list": msgspec.msgpack.encode([1, "d", True]),
    "JSON": msgspec.json.encode(ONLINE),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        codec.decode(Online, data)


@pytest.mark.parametrize(
    "data",
    [
        packed(ONLINE, **{"\x1b[2J\nall is well": 1}),
        packed(ONLINE, **{"x" * 60_000: 1}),
        packed(SAMPLE, arm="\x1b[2J\nall is well"),
        packed(SAMPLE, release=BAD_REF | {"model": "x" * 60_000}),
    ],
    ids=["steering key", "long key", "steering value", "long value"],
)
def test_a_refusal_of_hostile_bytes_is_one_short_line(data: bytes) -> None:
    kind = Sample if b"prediction_id" in data else Online
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(kind, data)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@given(data=st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for kind in KINDS:
        with pytest.raises(InvalidMessage):
            codec.decode(kind, data)


@pytest.mark.parametrize("message", EXAMPLES)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_valid_message_or_is_refused(
    message: Any, position: float, value: int
) -> None:
    kind = type(message)
    data = bytearray(codec.encode(message))
    data[int(position * len(data))] = value
    try:
        found = codec.decode(kind, bytes(data))
    except InvalidMessage:
        return
    assert codec.decode(kind, codec.encode(found)) == found
