"""The public ``tritonclient`` drives a real agent, over HTTP and gRPC."""

import asyncio
import http.client
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from edge_agent.client import AgentClient
from edge_agent.serving import grpc_messages, grpc_server
from edge_agent.serving.http_protocol import MAX_BODY_BYTES
from edge_core.errors import InvalidConfiguration
from tests.simulators.open_agent import OpenAgent, open_agent
from tests.simulators.tiny_bundle import CLASSES, TARGET, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import CLASSES as PARCEL_CLASSES
from tests.simulators.tiny_requests import tiny_requests

MODEL, PARCELS = "tiny-motion", "tiny-parcels"
CALL = "/inference.GRPCInferenceService/ModelInfer"
Modules = Any
PROTOCOLS = pytest.mark.parametrize("triton", [over_http, over_grpc], ids=["http", "grpc"])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAgent]:
    """It answers windows."""
    with open_agent(tmp_path_factory.mktemp("windows"), tiny_bundle) as running:
        yield running


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAgent]:
    """It answers requests."""
    with open_agent(tmp_path_factory.mktemp("requests"), tiny_requests) as running:
        yield running


@contextmanager
def client_of(triton: Modules, agent: OpenAgent) -> Iterator[Any]:
    port = agent.rest if triton is over_http else agent.grpc
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        client.close()


def tensor(triton: Modules, name: str, values: np.ndarray, **how: Any) -> Any:
    kinds = {"f": "FP32", "i": "INT64", "O": "BYTES"}
    found = triton.InferInput(name, list(values.shape), kinds[values.dtype.kind])
    found.set_data_from_numpy(values, **how)
    return found


def plain(found: Any) -> dict[str, Any]:
    """Metadata as a dictionary, whichever protocol they came by."""
    if isinstance(found, dict):
        return found
    shapes = {
        kind: [
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
            for one in getattr(found, kind, ())
        ]
        for kind in ("inputs", "outputs")
    }
    return {
        "name": found.name,
        "versions": list(getattr(found, "versions", ())),
        "version": getattr(found, "version", ""),
        "extensions": list(getattr(found, "extensions", ())),
        **shapes,
    }


def metrics_of(agent: OpenAgent) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.rest, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


@PROTOCOLS
def test_health_and_metadata(triton: Modules, agent: OpenAgent) -> None:
    with client_of(triton, agent) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.is_model_ready(MODEL, "1.0.0")
        server = plain(client.get_server_metadata())
        model = plain(client.get_model_metadata(MODEL))
        assert plain(client.get_model_metadata(MODEL, "1.0.0")) == model
    assert server["name"] == "serinus"
    assert "binary_tensor_data" in server["extensions"]
    assert (model["name"], model["versions"]) == (MODEL, ["1.0.0"])
    assert model["inputs"] == [{"name": "samples", "datatype": "FP32", "shape": [-1, 8, 2]}]
    assert model["outputs"] == [
        {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
        {"name": "served_by", "datatype": "BYTES", "shape": [-1]},
    ]


@PROTOCOLS
@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_windows_are_answered(triton: Modules, agent: OpenAgent, version: str) -> None:
    samples, labels = tiny_rows(6)
    with client_of(triton, agent) as client:
        inputs = [tensor(triton, "samples", samples)]
        answer = client.infer(MODEL, inputs, model_version=version, request_id="r1")
        again = client.infer(MODEL, inputs)
    scores = answer.as_numpy("scores")
    assert (scores.dtype, scores.shape) == (np.float32, (6, 3))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert answer.as_numpy("label").tolist() == [CLASSES[label].encode() for label in labels]
    assert answer.as_numpy("served_by").tolist() == [b"model"] * 6
    assert len(set(answer.as_numpy("prediction_id").tolist())) == 6
    np.testing.assert_array_equal(again.as_numpy("scores"), scores)
    header = answer.get_response()
    assert (header["id"] if triton is over_http else header.id) == "r1"
    with AgentClient(agent.socket) as direct:
        expected = direct.predict(samples)
    np.testing.assert_array_equal(scores, np.array([one.scores for one in expected], np.float32))


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("wanted", [True, False], ids=["binary out", "JSON out"])
def test_each_tensor_is_binary_or_json(agent: OpenAgent, sent: bool, wanted: bool) -> None:
    samples, labels = tiny_rows(4)
    with client_of(over_http, agent) as client:
        answer = client.infer(
            MODEL,
            [tensor(over_http, "samples", samples, binary_data=sent)],
            outputs=[
                over_http.InferRequestedOutput("label", binary_data=wanted),
                over_http.InferRequestedOutput("scores", binary_data=not wanted),
            ],
        )
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label", "scores"]
    kinds = ["data" not in output for output in answer.get_response()["outputs"]]
    assert kinds == [wanted, not wanted]
    texts = [text if isinstance(text, str) else text.decode() for text in answer.as_numpy("label")]
    assert texts == [CLASSES[label] for label in labels]
    assert answer.as_numpy("scores").shape == (4, 3)
    assert answer.as_numpy("served_by") is None


@PROTOCOLS
def test_requests_have_texts_and_moments(triton: Modules, parcels: OpenAgent) -> None:
    place = np.array(["p1", "pläce"], object)
    size = np.array([1.5, np.nan], np.float32)
    with client_of(triton, parcels) as client:
        inputs = [tensor(triton, "place", place), tensor(triton, "size", size)]
        answer = client.infer(PARCELS, inputs)
        now = int(answer.as_numpy("time_us")[0])
        at = tensor(triton, "at", np.array([now + 1, now + 2], np.int64))
        later = client.infer(PARCELS, [*inputs, at])
        metadata = plain(client.get_model_metadata(PARCELS))
    assert [one["datatype"] for one in metadata["inputs"]] == ["INT64", "BYTES", "FP32"]
    assert answer.as_numpy("scores").shape == (2, len(PARCEL_CLASSES))
    assert later.as_numpy("time_us").tolist() == [now + 1, now + 2]


def test_contents_of_grpc_need_not_be_raw(agent: OpenAgent, parcels: OpenAgent) -> None:
    """Clients of KServe send typed contents, and get typed contents back."""
    samples, labels = tiny_rows(2)
    windows = grpc_messages.of("ModelInferRequest")(
        model_name=MODEL,
        inputs=[
            {
                "name": "samples",
                "datatype": "FP32",
                "shape": [2, 8, 2],
                "contents": {"fp32_contents": samples.ravel().tolist()},
            }
        ],
    )
    answer = called(agent, windows)
    assert not answer.raw_output_contents
    by_name = {output.name: output for output in answer.outputs}
    assert len(by_name["scores"].contents.fp32_contents) == 6
    found = [text.decode() for text in by_name["label"].contents.bytes_contents]
    assert found == [CLASSES[label] for label in labels]
    assert answer.parameters["target"].string_param == TARGET
    texts = {"name": "place", "datatype": "BYTES", "shape": [1]}
    numbers = {"name": "size", "datatype": "FP32", "shape": [1]}
    request = grpc_messages.of("ModelInferRequest")(
        model_name=PARCELS,
        inputs=[
            texts | {"contents": {"bytes_contents": [b"p1"]}},
            numbers | {"contents": {"fp32_contents": [2.0]}},
        ],
    )
    answer = called(parcels, request)
    assert {len(output.contents.int64_contents) for output in answer.outputs} == {0, 1}


def test_slices_and_consumers_come_along(agent: OpenAgent) -> None:
    samples, _ = tiny_rows(1)
    with client_of(over_grpc, agent) as client:
        inputs = [tensor(over_grpc, "samples", samples)]
        named = {"serinus-consumer": "line-7/press"}
        client.infer(MODEL, inputs, headers=named, parameters={"slice.side": "right"})
        with pytest.raises(InferenceServerException, match="not declared") as refused:
            client.infer(MODEL, inputs, parameters={"slice.side": "top"})
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="consumer's name"):
            client.infer(MODEL, inputs, headers={"serinus-consumer": "a b"})
    with client_of(over_http, agent) as client:
        inputs = [tensor(over_http, "samples", samples)]
        client.infer(MODEL, inputs, headers={"X-Serinus-Consumer": "line-7/press"})
        with pytest.raises(InferenceServerException, match="consumer's name"):
            client.infer(MODEL, inputs, headers={"X-Serinus-Consumer": "x" * 65})
        client.infer(MODEL, inputs)
    key = f'serinus_consumer_predictions_total{{consumer="%s",model="{MODEL}"}}'
    # The inference thread counts after it answered.
    while key % "http" not in (found := metrics_of(agent)):
        pass
    assert found[key % "line-7/press"] == 2


@PROTOCOLS
def test_a_timeout_is_a_deadline(triton: Modules, agent: OpenAgent) -> None:
    inputs = [tensor(triton, "samples", tiny_rows(1)[0])]
    with client_of(triton, agent) as client:
        assert client.infer(MODEL, inputs, timeout=10_000_000).as_numpy("scores").shape == (1, 3)
        with pytest.raises(InferenceServerException, match="the deadline passed"):
            client.infer(MODEL, inputs, timeout=1)
    if triton is over_http:
        body = {"inputs": [], "parameters": {"timeout": -1}}
        body["inputs"] = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]
        status, answer = posted(agent, f"/v2/models/{MODEL}/infer", body)
        assert (status, "whole number of microseconds" in answer["error"]) == (400, True)


@PROTOCOLS
def test_what_is_not_there_is_named(triton: Modules, agent: OpenAgent) -> None:
    inputs = [tensor(triton, "samples", tiny_rows(1)[0])]
    with client_of(triton, agent) as client:
        assert not client.is_model_ready("other")
        assert not client.is_model_ready(MODEL, "9.9.9")
        with pytest.raises(
            InferenceServerException, match="no model 'other' here; served: tiny-motion"
        ):
            client.infer("other", inputs)
        with pytest.raises(InferenceServerException, match=r"has version 1\.0\.0 here, no other"):
            client.infer(MODEL, inputs, model_version="9.9.9")
        with pytest.raises(InferenceServerException, match="unknown output 'logits'"):
            client.infer(MODEL, inputs, outputs=[triton.InferRequestedOutput("logits")])
        with pytest.raises(InferenceServerException, match=r"needed is \[batch, 8, 2\]"):
            client.infer(MODEL, [tensor(triton, "samples", np.zeros((1, 4, 2), np.float32))])
        client.infer(MODEL, inputs)


def test_feedback_finds_its_prediction(agent: OpenAgent) -> None:
    with client_of(over_grpc, agent) as client:
        found = client.infer(MODEL, [tensor(over_grpc, "samples", tiny_rows(1)[0])])
    mine = found.as_numpy("prediction_id")[0].decode()
    path = f"/v2/models/{MODEL}/feedback"
    assert posted(agent, path, {"prediction_id": mine, "label": "still"}) == (200, {"joined": True})
    late = posted(agent, path, {"prediction_id": mine, "label": "still"})
    assert late == (200, {"joined": False})
    status, content = posted(agent, path, {"prediction_id": mine, "label": "asleep"})
    assert (status, "not one of still, shake, tilt" in content["error"]) == (400, True)
    status, content = posted(agent, path, {"prediction": mine})
    assert (status, "not feedback" in content["error"]) == (400, True)
    assert posted(agent, "/v2/models/other/feedback", {"prediction_id": "", "label": ""})[0] == 404


def test_explanations_over_http_are_those_of_the_socket(
    agent: OpenAgent, parcels: OpenAgent
) -> None:
    samples, _ = tiny_rows(3)
    path = f"/v2/models/{MODEL}/explain"
    body = {
        "id": "e1",
        "inputs": [
            {"name": "samples", "shape": [3, 8, 2], "datatype": "FP32", "data": samples.tolist()}
        ],
    }
    status, content = posted(agent, path, body)
    with AgentClient(agent.socket) as client:
        direct = client.explain(samples)
        by_feature = client.explain(samples, by="features", per_class=True)
    assert (status, content["id"], content["model_name"]) == (200, "e1", MODEL)
    assert content["contributions"] == direct.contributions
    assert (content["by"], content["names"]) == ("inputs", ["ax", "ay"])
    status, content = posted(
        agent, path, body | {"parameters": {"by": "features", "per_class": True}}
    )
    assert content["per_class"] == by_feature.per_class
    status, content = posted(agent, path, body | {"parameters": {"by": "magic"}})
    assert (status, "magic" in content["error"]) == (400, True)
    inputs = [
        {"name": "place", "shape": [1], "datatype": "BYTES", "data": ["p1"]},
        {"name": "size", "shape": [1], "datatype": "FP32", "data": [3]},
    ]
    status, content = posted(parcels, f"/v2/models/{PARCELS}/explain", {"inputs": inputs})
    assert (status, content["by"], len(content["contributions"][0])) == (200, "features", 7)


def binary(*sizes: int, **changes: Any) -> dict[str, Any]:
    """A request whose inputs claim to have so many bytes."""
    plain = {"name": "samples", "datatype": "FP32", "shape": [1, 8, 2]} | changes
    return {"inputs": [plain | {"parameters": {"binary_data_size": size}} for size in sizes]}


@pytest.mark.parametrize(
    ("header", "raw", "claimed", "text"),
    [
        (binary(64), bytes(60), None, "claims 64 bytes; 60 are left"),
        (binary(64), bytes(68), None, "4 bytes behind the JSON belong to no input"),
        (binary(64), bytes(64), 10**6, "the header claims 1000000 bytes of JSON"),
        (binary(64), bytes(64), "-1", "Inference-Header-Content-Length is '-1'"),
        (binary(64), bytes(64), "1e3", "Inference-Header-Content-Length is '1e3'"),
        (binary(64), bytes(64), 5, "not an inference request"),
        (binary(-1), b"", None, "Expected `int` >= 0"),
        (binary(63), bytes(63), None, "has 63 bytes; each FP32 has 4"),
        (binary(64, shape=[2, 8, 2]), bytes(64), None, "do not fill the shape"),
        (binary(64, shape=[2**62, 4, 4]), bytes(64), None, "do not fill the shape"),
        (binary(64, shape=[1] * 9), bytes(64), None, "length <= 3"),
        (binary(64, datatype="FP64"), bytes(64), None, "FP64"),
        (binary(4, datatype="BYTES"), b"\xff\xff\xff\xff", None, "longer than its bytes"),
        (binary(3, datatype="BYTES"), b"\x01\x00\x00", None, "within the length of a text"),
        (binary(5, datatype="BYTES"), b"\x01\x00\x00\x00\xff", None, "not UTF-8"),
        (binary(64, data=[0]), bytes(64), None, "either data or a binary_data_size"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, b"", None, "either data"),
        (binary(0, shape=[0, 8, 2]), b"", None, "holds no rows"),
    ],
    ids=str,
)
def test_lengths_that_lie_get_one_line(
    agent: OpenAgent, header: dict[str, Any], raw: bytes, claimed: Any, text: str
) -> None:
    content = json.dumps(header).encode()
    length = str(len(content) if claimed is None else claimed)
    status, answer = posted(
        agent,
        f"/v2/models/{MODEL}/infer",
        content + raw,
        {"Inference-Header-Content-Length": length},
    )
    assert (status, set(answer)) == (400, {"error"})
    assert text in answer["error"]
    assert "\n" not in answer["error"]


def test_shared_memory_is_not_read(agent: OpenAgent) -> None:
    elsewhere = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    inputs = [{"name": "samples", "datatype": "FP32", "shape": [1, 8, 2], "parameters": elsewhere}]
    status, answer = posted(agent, f"/v2/models/{MODEL}/infer", {"inputs": inputs})
    assert (status, "shared memory, which is not read" in answer["error"]) == (400, True)


def test_other_bodies_are_refused_by_what_they_are(agent: OpenAgent) -> None:
    path = f"/v2/models/{MODEL}/infer"
    assert posted(agent, path, b"{}", {"Content-Encoding": "gzip"})[0] == 415
    status, answer = posted(agent, path, b"", {"Content-Length": str(MAX_BODY_BYTES + 1)})
    assert (status, "send fewer rows" in answer["error"]) == (413, True)
    assert posted(agent, "/v2/models/x/y/z", b"{}")[0] == 404
    assert posted(agent, "/v2/health/live", b"{}")[0] == 405
    counted = metrics_of(agent)
    for kind in ("Compressed", "TooLarge", "NoSuchPath", "NoSuchMethod", "InvalidMessage"):
        key = f'serinus_requests_refused_total{{interface="http",kind="{kind}"}}'
        assert counted[key] >= 1


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"inputs": []}, "INVALID_ARGUMENT", "0 inputs came"),
        ({"raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT", "2 raw contents came for 1"),
        ({"raw_input_contents": [bytes(60)]}, "INVALID_ARGUMENT", "do not fill the shape"),
        ({"raw_input_contents": [bytes(63)]}, "INVALID_ARGUMENT", "has 63 bytes"),
        ({"model_name": "other"}, "NOT_FOUND", "no model 'other' here"),
        ({"id": "x" * 257}, "INVALID_ARGUMENT", "at most 256"),
        ({"outputs": [{"name": "a"}] * 9}, "INVALID_ARGUMENT", "9 outputs are wanted"),
        ({"outputs": [{"name": "label"}] * 2}, "INVALID_ARGUMENT", "asked for twice"),
    ],
    ids=str,
)
def test_a_bad_call_gets_one_line(
    agent: OpenAgent, changes: dict[str, Any], code: str, text: str
) -> None:
    good: dict[str, Any] = {
        "model_name": MODEL,
        "inputs": [{"name": "samples", "datatype": "FP32", "shape": [1, 8, 2]}],
        "raw_input_contents": [bytes(64)],
    }
    with pytest.raises(grpc.RpcError) as refused:
        called(agent, grpc_messages.of("ModelInferRequest")(**(good | changes)))
    assert refused.value.code().name == code
    assert text in refused.value.details()
    assert called(agent, grpc_messages.of("ModelInferRequest")(**good)).outputs


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"datatype": "FP16"}, "datatype 'FP16'"),
        ({"shape": []}, "0 axes"),
        ({"shape": [1, 2, 3, 4]}, "4 axes"),
        ({"contents": {"fp32_contents": [1]}}, "both contents and raw"),
        ({"parameters": {"shared_memory_region": {"string_param": "r"}}}, "shared memory"),
        ({"datatype": "BYTES"}, "longer than its bytes"),
        ({"datatype": "INT64"}, "samples are FP32"),
    ],
    ids=str,
)
def test_a_bad_tensor_gets_one_line(agent: OpenAgent, tensor: dict[str, Any], text: str) -> None:
    plain = {"name": "samples", "datatype": "FP32", "shape": [1, 8, 2]} | tensor
    raw = struct.pack("<I", 99) + bytes(60)
    request = grpc_messages.of("ModelInferRequest")(
        model_name=MODEL, inputs=[plain], raw_input_contents=[raw]
    )
    with pytest.raises(grpc.RpcError) as refused:
        called(agent, request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in refused.value.details()


def test_bytes_that_are_no_message_are_refused_and_counted(agent: OpenAgent) -> None:
    key = 'serinus_requests_refused_total{interface="grpc",kind="InvalidMessage"}'
    before = metrics_of(agent).get(key, 0)
    with grpc.insecure_channel(f"127.0.0.1:{agent.grpc}") as channel:
        with pytest.raises(grpc.RpcError, match="not a ModelInferRequest") as refused:
            channel.unary_unary(CALL)(b"\xff" * 40, timeout=10)
        with pytest.raises(grpc.RpcError) as large:
            channel.unary_unary(CALL)(bytes(9 * 1024 * 1024), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metrics_of(agent)[key] == before + 1


def test_the_metrics_of_a_whole_agent(agent: OpenAgent) -> None:
    with client_of(over_http, agent) as client:
        before = metrics_of(agent)
        client.infer(MODEL, [tensor(over_http, "samples", tiny_rows(5)[0])])
    key = f'model="{MODEL}",served_by="model",version="1.0.0"'
    rows = f"serinus_predictions_total{{{key}}}"
    latency = f'{{model="{MODEL}",version="1.0.0"}}'
    # The inference thread counts after it answered.
    found = metrics_of(agent)
    while found[rows] < before.get(rows, 0) + 5:
        found = metrics_of(agent)
    assert found[rows] - before.get(rows, 0) == 5
    assert found[f"serinus_prediction_latency_seconds_count{latency}"] == found[rows]
    assert found[f"serinus_prediction_latency_seconds_sum{latency}"] > 0
    buckets = [v for k, v in found.items() if k.startswith("serinus_prediction_latency_seconds_b")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found[rows]
    assert found["serinus_queue_rows"] == 0
    assert found["serinus_connected"] == 0
    assert found["serinus_outbox_bytes"] >= 0
    assert found["serinus_outbox_dropped_messages_total"] == 0
    states = {k: v for k, v in found.items() if k.startswith("serinus_update_state")}
    assert (sum(states.values()), len(states)) == (1, 10)
    assert found["process_resident_memory_bytes"] > 10e6
    assert found["process_cpu_seconds_total"] > 0


def test_the_descriptor_is_that_of_the_proto(tmp_path: Path) -> None:
    from grpc_tools import protoc

    folder = Path(grpc_messages.__file__).parent
    made = tmp_path / "made.binpb"
    arguments = ["-I", str(folder), "--include_imports", "--descriptor_set_out", str(made)]
    assert protoc.main(["protoc", *arguments, "open_inference.proto"]) == 0
    assert made.read_bytes() == (folder / grpc_messages.DESCRIPTOR).read_bytes()


def test_our_descriptor_is_the_public_one() -> None:
    """Names, numbers and types of every field are those that tritonclient was generated from."""
    public = over_grpc.service_pb2.DESCRIPTOR

    def fields(kind: Any) -> dict[str, Any]:
        own = {field.name: (field.number, field.type) for field in kind.fields}
        return own | {inner.name: fields(inner) for inner in kind.nested_types}

    service = public.services_by_name["GRPCInferenceService"]
    for call in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata"):
        assert call in service.methods_by_name
    names = [
        f"{call}{kind}"
        for call in (
            "ModelInfer",
            "ModelMetadata",
            "ModelReady",
            "ServerLive",
            "ServerReady",
            "ServerMetadata",
        )
        for kind in ("Request", "Response")
    ]
    for name in [*names, "InferParameter", "InferTensorContents"]:
        ours = fields(grpc_messages.of(name).DESCRIPTOR)
        assert ours == fields(public.message_types_by_name[name])


def test_without_the_extra_its_name_is_told() -> None:
    code = """
import sys
sys.modules["grpc"] = None
from edge_agent.config import Serving
from edge_agent.serving import open_protocol
from edge_core.errors import InvalidConfiguration
try:
    open_protocol.servers(Serving(socket="x", grpc_port=9), None, dict)
except InvalidConfiguration as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("[serving] grpc_port needs gRPC (grpc is missing)")
    assert "'serinus[grpc]'" in done.stdout


def test_a_busy_port_of_grpc_is_named(agent: OpenAgent) -> None:
    async def story() -> None:
        with pytest.raises(InvalidConfiguration, match=f"port {agent.grpc} .*grpc_port"):
            grpc_server.listen(agent.grpc, None, "0.1.0")  # type: ignore[arg-type]  # never asked

    asyncio.run(story())


def test_what_no_settings_ask_for_is_not_loaded() -> None:
    code = """
import sys
from edge_agent.config import Serving
from edge_agent.serving import open_protocol
assert open_protocol.servers(Serving(socket="x"), None, dict) == []
print([name for name in ("grpc", "httptools", "prometheus_client") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def posted(
    agent: OpenAgent, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and content of a POST."""
    content = body if isinstance(body, bytes) else json.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", agent.rest, timeout=10)
    try:
        connection.request("POST", path, content, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def called(agent: OpenAgent, request: Any) -> Any:
    """The answer to a ``ModelInfer``."""
    with grpc.insecure_channel(f"127.0.0.1:{agent.grpc}") as channel:
        answer = channel.unary_unary(CALL)(request.SerializeToString(), timeout=10)
    return grpc_messages.of("ModelInferResponse").FromString(answer)
