import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving import grpc_messages, grpc_server, http_bodies, raw_tensors, tensors
from edge_agent.serving.tensors import Datatype, Tensor
from edge_core.errors import InvalidInput, InvalidMessage, SerinusError
from tests.simulators import tiny_bundle, tiny_requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
INPUT = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["samples", "place", "size", "at", "x"]),
        "shape": st.lists(st.integers() | st.integers(0, 4), max_size=4),
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "FP16"]),
    },
    optional={
        "data": st.lists(JSON, max_size=6),
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)}),
    },
)
BODY = st.fixed_dictionaries(
    {"inputs": st.lists(INPUT, max_size=3)},
    optional={"id": JSON, "parameters": JSON, "outputs": JSON},
)


def used(body: bytes, header_length: int | None) -> None:
    """Whatever comes, either it is understood or it is refused."""
    with contextlib.suppress(InvalidInput, InvalidMessage):
        read = http_bodies.inference(body, header_length)
        with contextlib.suppress(InvalidInput):
            assert tensors.samples_of(read.asked).dtype == np.float32
        tensors.fields_of(tiny_requests.DEFINITION, read.asked)


@given(st.binary(max_size=64), st.none() | st.integers(-2, 80))
def test_any_bytes_are_read_or_refused(body: bytes, header_length: int | None) -> None:
    used(body, header_length)


@given(BODY, st.binary(max_size=40), st.integers(-3, 3), st.booleans())
def test_any_request_is_read_or_refused(
    content: dict[str, Any], raw: bytes, lie: int, binary: bool
) -> None:
    header = msgspec.json.encode(content)
    used(header + raw, len(header) + lie if binary else None)


@given(st.binary(max_size=200))
def test_any_bytes_of_grpc_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(grpc_server.DecodeError, SerinusError):
        asked = grpc_server.asked(grpc_messages.of("ModelInferRequest").FromString(data))
        assert asked.inputs


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), max_size=9)
)
def test_texts_survive_the_raw_bytes(texts: list[str]) -> None:
    sent = Tensor("x", "BYTES", [len(texts)], texts)
    assert raw_tensors.read("x", "BYTES", [len(texts)], raw_tensors.written(sent)) == sent


@pytest.mark.parametrize(("datatype", "kind"), [("FP32", np.float32), ("INT64", np.int64)])
def test_numbers_survive_the_raw_bytes(datatype: Datatype, kind: Any) -> None:
    values = np.array([0, 1, -1, np.iinfo(np.int32).max], kind)
    data = raw_tensors.written(Tensor("x", datatype, [4], values))
    assert data == values.tobytes()  # this machine is little-endian, as the protocol is
    np.testing.assert_array_equal(raw_tensors.read("x", datatype, [4], data).values, values)


def test_several_raw_inputs_follow_one_another() -> None:
    content = {
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [1], "datatype": "INT64", "data": [5]},
            {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
        ]
    }
    header = msgspec.json.encode(content)
    raw = np.array([1, 2], "<f4").tobytes() + b"\x02\x00\x00\x00hi"
    read = http_bodies.inference(header + raw, len(header))
    a, b, c = read.asked.inputs
    assert (np.asarray(a.values).tolist(), b.values, c.values) == ([1, 2], [5], ["hi"])


@pytest.mark.parametrize(
    ("parameters", "outputs", "expected"),
    [
        ({}, [], set()),
        ({"binary_data_output": True}, [], set(tensors.OUTPUTS)),
        ({"binary_data_output": True}, [{"name": "label"}], {"label"}),
        (
            {"binary_data_output": True},
            [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}],
            {"scores"},
        ),
        ({}, [{"name": "label", "parameters": {"binary_data": True}}], {"label"}),
    ],
    ids=["none", "all", "one of all", "all but one", "one"],
)
def test_each_output_is_binary_where_it_is_wanted(
    parameters: dict[str, Any], outputs: list[Any], expected: set[str]
) -> None:
    body = {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}],
        "parameters": parameters,
        "outputs": outputs,
    }
    assert http_bodies.inference(msgspec.json.encode(body)).binary == expected


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"classification": 2}, "classification of outputs is not offered"),
        ({"shared_memory_region": "r"}, "shared memory"),
    ],
)
def test_what_an_output_cannot_be_is_named(output: dict[str, Any], text: str) -> None:
    body = {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}],
        "outputs": [{"name": "label", "parameters": output}],
    }
    with pytest.raises(InvalidInput, match=text):
        http_bodies.inference(msgspec.json.encode(body))


@pytest.mark.parametrize(
    "shape", [[2**31, 2**31, 4], [2**64, 1, 1], [1, 8, 2, 1], [1, 16], [-1, -8, 2]]
)
def test_shapes_are_never_believed(shape: list[int]) -> None:
    samples = tiny_bundle.tiny_rows(1)[0].ravel()
    asked = tensors.Asked("", [Tensor("samples", "FP32", shape, samples)], {}, [])
    with pytest.raises(InvalidInput):
        tensors.samples_of(asked)
