import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving import rest, tensors
from edge_agent.serving.engine import Engine
from edge_agent.serving.http_protocol import MAX_BODY_BYTES
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import InvalidConfiguration
from tests.simulators.processes import free_port
from tests.simulators.tiny_bundle import CLASSES, tiny_rows
from tests.simulators.tiny_requests import BEGIN, SECOND

pytestmark = pytest.mark.anyio
INFER = "/v2/models/tiny-motion/infer"
PARCELS = "/v2/models/tiny-parcels"
END = BEGIN + 300 * SECOND


@asynccontextmanager
async def served(
    monitor: Monitor, release: LoadedRelease | None, *others: LoadedRelease
) -> AsyncIterator[httpx.AsyncClient]:
    """A real HTTP server on loopback and a client to it."""
    engine = Engine(monitor, slices={}, max_queue_rows=2048, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    for other in others:
        engine.add_lane().set_active(other, "incumbent", None)
    port = free_port()
    task = asyncio.create_task(rest.serve(rest.create_app(engine, "0.1.0"), rest.listen(port)))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        await client.get("/v2/health/live")
                        break
                    await asyncio.sleep(0.02)
            yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.close()


def tensor(rows: int, **changes: Any) -> dict[str, Any]:
    samples, _ = tiny_rows(rows)
    return {
        "name": "samples",
        "shape": list(samples.shape),
        "datatype": "FP32",
        "data": samples.ravel().tolist(),
        **changes,
    }


async def test_an_inference_answers_as_the_protocol_says(
    monitor: Monitor, release: LoadedRelease
) -> None:
    _, labels = tiny_rows(4)
    async with served(monitor, release) as client:
        answer = await client.post(INFER, json={"id": "x1", "inputs": [tensor(4)]})
    assert answer.status_code == 200
    content = answer.json()
    assert (content["model_name"], content["model_version"], content["id"]) == (
        "tiny-motion",
        "1.0.0",
        "x1",
    )
    assert content["parameters"] == {
        "release": release.ref.digest,
        "target": release.target,
        "runtime": release.session.runtime,
    }
    scores, label, ids, served_by = content["outputs"]
    assert (scores["datatype"], scores["shape"], len(scores["data"])) == ("FP32", [4, 3], 12)
    assert label["data"] == [CLASSES[index] for index in labels]
    assert (ids["name"], len(set(ids["data"]))) == ("prediction_id", 4)
    assert (served_by["name"], served_by["data"]) == ("served_by", ["model"] * 4)


async def test_nested_data_are_accepted(monitor: Monitor, release: LoadedRelease) -> None:
    nested = tiny_rows(2)[0].tolist()
    async with served(monitor, release) as client:
        answer = await client.post(INFER, json={"inputs": [tensor(2, data=nested)]})
    assert answer.json()["outputs"][0]["shape"] == [2, 3]


async def test_health_and_metadata(monitor: Monitor, release: LoadedRelease) -> None:
    async with served(monitor, release) as client:
        assert (await client.get("/v2")).json()["name"] == "serinus"
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert (await client.get("/v2/models/tiny-motion/ready")).status_code == 200
        metadata = (await client.get("/v2/models/tiny-motion")).json()
    assert metadata["inputs"][0]["shape"] == [-1, 8, 2]
    assert "onnxruntime" in metadata["platform"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "truncated"),
        (b"\xff\xfe\x00", "malformed"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"inputs": [{"data": ' + b"[" * 100_000, "recursion"),
        ({"inputs": []}, "length >= 1"),
        ({"inputs": [tensor(1, name="features")]}, "the input is 'samples'"),
        ({"inputs": [tensor(1, datatype="INT8")]}, "INT8"),
        ({"inputs": [tensor(1, shape=[1, 8])]}, "samples are FP32 [batch, samples, inputs]"),
        ({"inputs": [tensor(1, shape=[2, 8, 2])]}, "do not fill the shape"),
        ({"inputs": [tensor(1, shape=[-1, 8, 2])]}, "shape"),
        ({"inputs": [tensor(1, data=["a"] * 16)]}, "do not fill the shape"),
        ({"inputs": [tensor(1, data=[None] * 16)]}, "NaN or infinity in ax, ay"),
        ({"inputs": [tensor(1, data=[1e300] * 16)]}, "NaN or infinity in ax, ay"),
        ({"inputs": [tensor(1, shape=[2, 4, 2])]}, r"needed is [batch, 8, 2]"),
        ({"inputs": [tensor(1)], "parameters": {"slices": {"side": "top"}}}, "not declared"),
        ({"inputs": [tensor(1)], "parameters": {"slices": 3}}, "parameters.slices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",
)
async def test_a_bad_body_gets_one_line(
    monitor: Monitor, release: LoadedRelease, body: Any, text: str
) -> None:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with served(monitor, release) as client:
        answer = await client.post(INFER, content=content)
        assert answer.status_code == 400
        assert set(answer.json()) == {"error"}
        assert text in answer.json()["error"]
        assert (await client.post(INFER, json={"inputs": [tensor(1)]})).status_code == 200


async def test_other_refusals_have_their_status(monitor: Monitor, release: LoadedRelease) -> None:
    async with served(monitor, release) as client:
        unknown = await client.get("/v2/models/other")
        assert (unknown.status_code, "tiny-motion" in unknown.json()["error"]) == (404, True)
        large = await client.post(INFER, content=bytes(MAX_BODY_BYTES + 1))
        assert large.status_code == 413
        assert "send fewer rows" in large.json()["error"]
        assert (await client.get(INFER)).status_code == 405


async def test_without_a_release_it_is_not_ready(monitor: Monitor) -> None:
    async with served(monitor, None) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 503
        answer = await client.post(INFER, json={"inputs": [tensor(1)]})
        assert answer.status_code == 503
        assert "no release is active" in answer.json()["error"]


EVENTS: dict[str, Any] = {
    "times_us": [END - 10, END - 5, END + 2 * SECOND],
    "sequence": [1, 2, 3],
    "fields": {"place": ["p1"] * 3, "kind": ["box", None, "bag"], "weight": [1.0, None, 3]},
}


def inputs(**changes: Any) -> list[dict[str, Any]]:
    plain = {
        "place": {"name": "place", "shape": [2], "datatype": "BYTES", "data": ["p1", "p2"]},
        "size": {"name": "size", "shape": [2], "datatype": "FP32", "data": [1.5, None]},
    }
    return [tensor | changes.get(name, {}) for name, tensor in plain.items()]


async def test_requests_have_an_input_for_each_field(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    async with served(monitor, parcels) as client:
        metadata = (await client.get(PARCELS)).json()
        before = (await client.post(f"{PARCELS}/infer", json={"inputs": inputs()})).json()
        noted = await client.post(f"{PARCELS}/events/parcels", json=EVENTS)
        at = {"name": "at", "shape": [2], "datatype": "INT64", "data": [END, END + 1]}
        after = await client.post(f"{PARCELS}/infer", json={"inputs": [*inputs(), at], "id": "x"})
        assert "serinus_events" in (await client.get("/v2")).json()["extensions"]
    assert metadata["inputs"] == [
        {"name": "at", "datatype": "INT64", "shape": [-1]},
        {"name": "place", "datatype": "BYTES", "shape": [-1]},
        {"name": "size", "datatype": "FP32", "shape": [-1]},
    ]
    assert noted.json() == {
        "model_name": "tiny-parcels",
        "model_version": "1.0.0",
        "stream": "parcels",
        "taken": 2,
        "dropped": {"duplicate": 0, "expired": 0, "ahead": 1, "overflow": 0, "evicted": 0},
    }
    times = [answer["outputs"][4] for answer in (before, after.json())]
    assert [one["name"] for one in times] == ["time_us"] * 2
    assert [one["data"] for one in times] == [[END, END], [END, END + 1]]
    assert before["outputs"][0]["data"] != after.json()["outputs"][0]["data"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "truncated"),
        ({"inputs": inputs(size={"name": "mass"})}, "unknown input 'mass'; the inputs are at,"),
        ({"inputs": inputs(size={"name": "place"})}, "input place comes twice"),
        ({"inputs": inputs(size={"datatype": "INT64"})}, "input size is FP32 [n] with n values"),
        ({"inputs": inputs(size={"shape": [3]})}, "not FP32 [3] with 2"),
        ({"inputs": inputs(size={"shape": [2, 1]})}, "not FP32 [2, 1] with 2"),
        ({"inputs": inputs(size={"data": [[1], [2]]})}, "input size is no flat list of values"),
        ({"inputs": inputs(size={"data": ["1", "2"]})}, "size is no column of numbers"),
        ({"inputs": inputs(place={"data": [1, 2]})}, "place is no column of texts"),
        ({"inputs": inputs()[:1]}, "fields are missing: size"),
        ({"inputs": [tensor(1)]}, "unknown input 'samples'"),
    ],
    ids=str,
)
async def test_a_bad_request_gets_one_line(
    monitor: Monitor, parcels: LoadedRelease, body: Any, text: str
) -> None:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with served(monitor, parcels) as client:
        answer = await client.post(f"{PARCELS}/infer", content=content)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})
        assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fields": {"place": ["p1"] * 3}}, "fields are missing: kind, weight"),
        ({"times_us": [1.5, 2, 3]}, "Expected `int`"),
        ({"times_us": [10**30, 2, 3]}, "event_time is no column of whole"),
        ({"sequence": [1]}, "different lengths"),
        ({"surprise": 1}, "unknown field `surprise`"),
    ],
    ids=str,
)
async def test_bad_events_get_one_line(
    monitor: Monitor, parcels: LoadedRelease, changes: dict[str, Any], text: str
) -> None:
    async with served(monitor, parcels) as client:
        answer = await client.post(f"{PARCELS}/events/parcels", json=EVENTS | changes)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})
        assert text in answer.json()["error"]
        other = await client.post(f"{PARCELS}/events/letters", json=EVENTS)
        assert "unknown stream letters" in other.json()["error"]
        unknown = await client.post("/v2/models/other/events/parcels", json=EVENTS)
        assert unknown.status_code == 404


async def test_several_models_answer_by_name(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    async with served(monitor, release, parcels) as client:
        motion = await client.post(INFER, json={"inputs": [tensor(1)]})
        place = await client.post(f"{PARCELS}/infer", json={"inputs": inputs()})
        noted = await client.post(f"{PARCELS}/events/parcels", json=EVENTS)
        unknown = await client.post("/v2/models/other/infer", json={"inputs": [tensor(1)]})
        nameless = await client.post("/v2/models//infer", json={"inputs": [tensor(1)]})
        metrics = (await client.get("/metrics")).text
    answers = [motion.json(), place.json(), noted.json()]
    assert [one["model_name"] for one in answers] == ["tiny-motion", "tiny-parcels", "tiny-parcels"]
    assert (unknown.status_code, nameless.status_code) == (404, 404)
    assert "served: tiny-motion, tiny-parcels" in unknown.json()["error"]
    assert metrics.count('serinus_release_info{model="tiny-') == 2


async def test_a_defect_of_ours_costs_one_request(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    async with served(monitor, release) as client:
        with monkeypatch.context() as patched:
            patched.setattr(tensors, "samples_of", broken)
            patched.setattr(tensors, "outputs_of", broken)
            asked = await client.post(INFER, json={"inputs": [tensor(1)]})
            told = await client.get("/v2/models/tiny-motion")
            patched.undo()
            patched.setattr(tensors, "answered", broken)
            answered = await client.post(INFER, json={"inputs": [tensor(1)]})
        for answer, status in ((asked, 500), (told, 500), (answered, 503)):
            assert (answer.status_code, set(answer.json())) == (status, {"error"})
            assert "RuntimeError: a defect" in answer.json()["error"]
        assert (await client.post(INFER, json={"inputs": [tensor(1)]})).status_code == 200


def test_a_busy_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfiguration, match=f"port {port} .*rest_port"):
            rest.listen(port)
