import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving import frames
from edge_agent.serving.fields import encoded
from edge_agent.serving.frames import Ask, Noted, Observe, Predict, Push, Status
from edge_agent.serving.predictions import Prediction
from edge_core.errors import InvalidInput, InvalidMessage


def body(frame: frames.Request | frames.Response) -> bytes:
    return frames.encode(frame)[frames.HEADER.size :]


def test_a_request_survives_the_wire() -> None:
    samples = np.arange(16, dtype="<f4").reshape(1, 8, 2)
    request = Predict(id=7, shape=(1, 8, 2), samples=samples.tobytes(), slices={"side": "left"})
    read = frames.decode_request(body(request))
    assert read == request
    assert isinstance(read, Predict)
    np.testing.assert_array_equal(frames.windows_of(read), samples)


def test_an_answer_survives_the_wire() -> None:
    prediction = Prediction(
        id="a-1",
        model="m",
        version="1.0.0",
        digest="0" * 64,
        target="t",
        served_by="model",
        label="still",
        confidence=0.75,
        scores=[0.75, 0.25],
        last_us=-5,
    )
    answers = frames.Answers(id=2**40, predictions=[prediction])
    assert frames.decode_response(body(answers)) == answers


def test_the_layout_is_the_documented_one() -> None:
    # docs/socket-protocol.md shows these arrays to other languages.
    request = Push(id=3, stream="wrist", times_us=b"\0" * 8, samples=b"\0" * 8)
    expected = ["push", 3, "wrist", b"\0" * 8, b"\0" * 8, {}, "", 0]
    assert msgspec.msgpack.decode(body(request)) == expected
    assert frames.encode(Status(id=1)) == b"\x09\0\0\0" + b"\x92\xa6status\x01"


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 8, 2), 60), ((0, 8, 2), 0), ((-1, -8, 2), 64), ((2, 8, 2), 64)]
)
def test_samples_have_to_fill_their_shape(shape: tuple[int, int, int], size: int) -> None:
    with pytest.raises(InvalidInput, match="do not fill the shape"):
        frames.windows_of(Predict(id=1, shape=shape, samples=b"\0" * size))


@pytest.mark.parametrize(
    ("times", "samples"), [(b"", b""), (b"\0" * 7, b"\0"), (b"\0" * 16, b"\0" * 12)]
)
def test_times_and_samples_have_to_go_together(times: bytes, samples: bytes) -> None:
    with pytest.raises(InvalidInput, match="do not go together"):
        frames.samples_of(Push(id=1, stream="s", times_us=times, samples=samples))


def test_an_unknown_kind_is_refused_with_its_id() -> None:
    data = msgspec.msgpack.encode(["dance", 41, "x"])
    with pytest.raises(InvalidMessage, match="dance"):
        frames.decode_request(data)
    assert frames.request_id(data) == 41


def test_a_newer_agent_may_say_more_and_a_newer_application_may_not() -> None:
    joined = frames.decode_response(msgspec.msgpack.encode(["joined", 4, True, "more"]))
    assert joined == frames.Joined(id=4, joined=True)
    with pytest.raises(InvalidMessage):
        frames.decode_request(msgspec.msgpack.encode(["status", 4, "more"]))


def test_a_frame_above_the_limit_is_not_even_made() -> None:
    with pytest.raises(InvalidMessage, match="send fewer rows"):
        frames.encode(Predict(id=1, shape=(1, 1, 1), samples=bytes(frames.MAX_FRAME_BYTES)))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    for decode in (frames.decode_request, frames.decode_response):
        with contextlib.suppress(InvalidMessage):
            decode(data)
    assert frames.request_id(data) >= 0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )
)
def test_any_msgpack_is_refused_or_read(content: object) -> None:
    data = msgspec.msgpack.encode(content)
    with contextlib.suppress(InvalidMessage):
        frames.decode_request(data)
    assert frames.request_id(data) >= 0


def test_events_and_requests_are_laid_out_as_documented() -> None:
    moments = np.array([5, 6], "<i8").tobytes()
    fields = {"place": ["a", None], "weight": np.array([1, 2], "<f4").tobytes(), "due": [7, None]}
    plain = ["observe", 3, "parcels", moments, moments, fields]
    for more in ([], [None], [moments]):
        read = frames.decode_request(msgspec.msgpack.encode([*plain, *more]))
        assert isinstance(read, Observe)
        assert (read.id, read.stream, read.fields) == (3, "parcels", fields)
        assert frames.moments_of("times", read.times_us).tolist() == [5, 6]
        assert read.arrived_us == (more[0] if more else None)
    asked = frames.decode_request(msgspec.msgpack.encode(["ask", 4, fields, {"side": "left"}]))
    assert asked == Ask(id=4, fields=fields, slices={"side": "left"})
    noted = Noted(id=3, taken=1, dropped={"late": 1})
    assert msgspec.msgpack.decode(body(noted)) == ["observed", 3, 1, {"late": 1}]


@pytest.mark.parametrize(
    "frame",
    [
        ["observe", 3, "parcels", b"", b""],
        ["observe", 3, 7, b"", b"", {}],
        ["observe", 3, "parcels", [1], b"", {}],
        ["observe", 3, "parcels", b"", b"", {"place": "a"}],
        ["observe", 3, "parcels", b"", b"", {"place": [["a"]]}],
        ["observe", 3, "parcels", b"", b"", {"place": [b"a"]}],
        ["observe", 3, "parcels", b"", b"", {7: []}],
        ["observe", 3, "parcels", b"", b"", {}, None, "", 0, "more"],
        ["ask", 3],
        ["ask", 3, []],
        ["ask", 3, {"place": {"a": 1}}],
        ["ask", 3, {"place": [True]}],
    ],
    ids=str,
)
def test_fields_of_another_shape_are_refused(frame: list[object]) -> None:
    data = msgspec.msgpack.encode(frame)
    with pytest.raises(InvalidMessage):
        frames.decode_request(data)
    assert frames.request_id(data) == 3


def test_parts_of_a_moment_are_refused() -> None:
    with pytest.raises(InvalidInput, match="times have 9 bytes"):
        frames.moments_of("times", bytes(9))


def test_columns_travel_as_bytes_or_values() -> None:
    sent = encoded(
        {
            "weight": np.array([1.5, np.nan]),
            "due": np.array([3, 4]),
            "place": ["a", None],
            "size": [np.float32(1.5), 2, None],
        }
    )
    assert sent == {
        "weight": np.array([1.5, np.nan], "<f4").tobytes(),
        "due": [3, 4],
        "place": ["a", None],
        "size": [1.5, 2, None],
    }


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_numpy_s_moments_are_refused_before_they_go(unit: str) -> None:
    moment = np.datetime64("2024-01-01", unit)
    for column in (np.array([moment]), [moment], [None, moment - moment]):
        with pytest.raises(InvalidInput, match="due holds numpy's moments"):
            encoded({"due": column})
