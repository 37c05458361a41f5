import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_agent.client import AgentClient, AsyncAgentClient
from edge_agent.serving import frames
from edge_core.errors import InvalidInput, InvalidMessage, Unavailable, UnknownModel
from edge_core.features.request_evaluation import RequestEvaluator
from tests.simulators.processes import Process
from tests.simulators.tiny_bundle import CLASSES, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import DEFINITION, SECOND, story, tiny_requests


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real ``serinus-agent serve``."""
    folder = tmp_path_factory.mktemp("agent")
    bundle, path = tiny_bundle(folder / "bundle"), folder / "agent.sock"
    command = [sys.executable, "-m", "edge_agent", "serve", str(bundle), "--socket", str(path)]
    with Process(command, folder / "agent.log") as process:
        process.wait_for_text("serving tiny-motion@1.0.0", seconds=20)
        yield path
        assert "Traceback" not in process.log.read_text()


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real agent that answers requests."""
    folder = tmp_path_factory.mktemp("parcels")
    bundle, path = tiny_requests(folder / "bundle"), folder / "agent.sock"
    command = [sys.executable, "-m", "edge_agent", "serve", str(bundle), "--socket", str(path)]
    with Process(command, folder / "agent.log") as process:
        process.wait_for_text("serving tiny-parcels@1.0.0", seconds=20)
        yield path
        assert "Traceback" not in process.log.read_text()


@contextmanager
def deaf(path: Path, answer: bytes = b"") -> Iterator[Path]:
    """A listener that takes a connection and answers with these bytes, or never."""
    done = threading.Event()

    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            done.wait(10)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            thread.join()


def test_predict_feedback_and_status(agent: Path) -> None:
    samples, labels = tiny_rows(5)
    with AgentClient(agent) as client:
        answers = client.predict(samples)
        assert [answer.label for answer in answers] == [CLASSES[label] for label in labels]
        assert client.feedback(answers[0].id, answers[0].label)
        assert not client.feedback(answers[0].id, answers[0].label)
        assert client.status()["active"] == "tiny-motion@1.0.0"


def test_pushed_samples_are_cut_into_windows(agent: Path) -> None:
    samples, _ = tiny_rows(4, seed=4)
    times = 20_000 * np.arange(1, 33)
    with AgentClient(agent) as client:
        answers = client.push("here", times, samples.reshape(-1, 2))
    assert [answer.first_us for answer in answers] == times[:25:4].tolist()


def test_refusals_come_back_as_the_error_they_are(agent: Path) -> None:
    with AgentClient(agent) as client:
        with pytest.raises(InvalidInput, match="three axes"):
            client.predict(np.zeros((8, 2)))
        with pytest.raises(InvalidInput, match="NaN or infinity in ax"):
            client.predict(np.full((1, 8, 2), np.inf))
        with pytest.raises(InvalidInput, match="not one of still"):
            client.feedback("x-1", "dance")
        with pytest.raises(InvalidMessage, match="send fewer rows"):
            client.predict(np.zeros((300_000, 8, 2), np.float32))
        assert client.predict(tiny_rows(1)[0])


def test_answers_are_explained(agent: Path, parcels: Path) -> None:
    samples, labels = tiny_rows(6)
    asked = {"place": ["p1", "p2"], "size": np.array([1.0, 2.0])}

    async def story() -> None:
        async with AsyncAgentClient(agent) as client:
            assert await client.explain(samples) == by_input
            with pytest.raises(InvalidInput, match="use predict and push"):
                await client.explain(asked)
        async with AsyncAgentClient(parcels) as client:
            assert (await client.explain(asked, per_class=True)).names == DEFINITION.feature_names

    with AgentClient(agent) as client:
        by_input = client.explain(samples)
        by_feature = client.explain(samples, by="features", per_class=True)
        with pytest.raises(InvalidInput, match="three axes"):
            client.explain(samples[0])
        with pytest.raises(InvalidInput, match="send 1 to 341"):
            client.explain(np.zeros((342, 8, 2)))
    assert by_input.labels == [CLASSES[label] for label in labels]
    assert (by_input.by, by_input.names, by_input.per_class) == ("inputs", ["ax", "ay"], [])
    assert np.array(by_input.contributions).shape == (6, 2)
    assert np.array(by_feature.per_class).shape == (6, 4, 3)
    for row, label in enumerate(labels):
        own = np.array(by_feature.per_class[row])[:, label]
        np.testing.assert_array_equal(own, by_feature.contributions[row])
    with AgentClient(parcels) as client:
        assert np.array(client.explain(asked).contributions).shape == (2, 7)
        with pytest.raises(InvalidInput, match="explain them by features"):
            client.explain(asked, by="inputs")
    asyncio.run(story())


def test_overlapping_requests_find_their_answers(agent: Path) -> None:
    samples, _ = tiny_rows(60)

    async def story() -> None:
        async with AsyncAgentClient(agent) as client:
            together = await asyncio.gather(*(client.predict(row[None]) for row in samples))
            whole = await client.predict(samples)
            assert [answers[0].scores for answers in together] == [a.scores for a in whole]
            assert await client.feedback(whole[0].id, whole[0].label)
            with pytest.raises(InvalidInput):
                await client.predict(np.zeros((1, 8, 3)))
            assert (await client.status())["target"] == "cpu-x86_64-ort"

    asyncio.run(story())


def test_no_agent_is_said_clearly(tmp_path: Path) -> None:
    async def connect() -> None:
        async with AsyncAgentClient(tmp_path / "none.sock"):
            pass

    with pytest.raises(Unavailable, match="no agent answers on"):
        AgentClient(tmp_path / "none.sock")
    with pytest.raises(Unavailable, match="no agent answers on"):
        asyncio.run(connect())


def test_a_late_answer_is_never_taken_for_the_next(tmp_path: Path) -> None:
    with deaf(tmp_path / "deaf.sock") as path, AgentClient(path, timeout=0.2) as client:
        with pytest.raises(Unavailable, match=r"no answer from .* within 0\.2 s"):
            client.status()
        with pytest.raises(Unavailable):
            client.status()


def test_the_async_client_gives_up_in_time(tmp_path: Path) -> None:
    async def story(path: Path) -> None:
        async with AsyncAgentClient(path, timeout=0.2) as client:
            with pytest.raises(Unavailable, match="within"):
                await client.status()

    with deaf(tmp_path / "deaf.sock") as path:
        asyncio.run(story(path))


def test_an_agent_that_talks_nonsense_is_refused(tmp_path: Path) -> None:
    async def story(path: Path) -> None:
        async with AsyncAgentClient(path) as client:
            with pytest.raises(InvalidMessage, match="not a response"):
                await client.status()
            with pytest.raises(Unavailable, match="connect again"):
                await client.status()

    nonsense = b"\x04\0\0\0abcd"
    with (
        deaf(tmp_path / "one.sock", nonsense) as path,
        AgentClient(path) as client,
        pytest.raises(InvalidMessage, match="not a response"),
    ):
        client.status()
    with deaf(tmp_path / "two.sock", nonsense) as path:
        asyncio.run(story(path))


def test_events_and_requests_travel_as_they_are(parcels: Path) -> None:
    told = story()
    expected = RequestEvaluator(DEFINITION).replay({"parcels": told.events}, told.request)
    with AgentClient(parcels) as client:
        noted = client.observe("parcels", *told.events[:2], told.events.fields, told.events[2])
        assert (noted.taken, set(noted.dropped.values())) == (200, {0})
        late = {**told.request, "at": told.request["at"] + 300 * SECOND}
        answers = client.ask(late)
        assert [answer.last_us for answer in answers] == late["at"].tolist()
        assert client.status()["features"] == "requests"
        again = client.observe("parcels", *told.events[:2], told.events.fields)
        # This device's clock is years ahead of the log.
        assert (again.taken, again.dropped["expired"]) == (0, 200)
        (now,) = client.ask({"place": ["p1"], "size": np.array([2.0])})
        assert now.last_us > 1_750_000_000 * SECOND
        with pytest.raises(InvalidInput, match="in order of time"):
            client.ask(told.request)
        with pytest.raises(InvalidInput, match="use ask and observe"):
            client.predict(tiny_rows(1)[0])
        with pytest.raises(InvalidInput, match="times are no whole numbers"):
            client.observe("parcels", [1.5], [1], told.events.fields)
    assert len(expected) == len(answers)


def test_two_applications_ask_at_once(parcels: Path) -> None:
    async def talk() -> None:
        async with AsyncAgentClient(parcels) as one, AsyncAgentClient(parcels) as other:
            asked = {"place": ["p1"], "size": [None]}
            found = await asyncio.gather(
                *(client.ask(asked) for _ in range(50) for client in (one, other))
            )
            times = [answers[0].last_us for answers in found]
            assert len(times) == 100
            event = {"place": ["p1"], "kind": ["box"], "weight": np.float64([1.0])}
            noted = await other.observe("parcels", [times[-1]], [7], event)
            assert noted.taken == 1
            with pytest.raises(InvalidInput, match="unknown stream nothing"):
                await one.observe("nothing", [1], [1], event)

    asyncio.run(talk())


def test_a_pipeline_gives_each_batch_its_own_answer_in_order(agent: Path) -> None:
    samples, _ = tiny_rows(200)
    with AgentClient(agent) as client:
        whole = client.predict(samples)
        batches = [samples[start : start + 2] for start in range(0, 200, 2)]
        found = list(client.predict_each(batches, in_flight=16))
    assert [len(answers) for answers in found] == [2] * 100
    flat = [answer.scores for answers in found for answer in answers]
    assert flat == [answer.scores for answer in whole]


def test_one_bad_batch_of_a_pipeline_fails_at_its_place(agent: Path) -> None:
    samples, _ = tiny_rows(3)
    broken = np.full_like(samples[1:2], np.inf)
    with AgentClient(agent) as client:
        answers = client.predict_each([samples[:1], broken, samples[2:]], in_flight=8)
        assert len(next(answers)) == 1
        with pytest.raises(InvalidInput, match="NaN"):
            next(answers)
        assert len(client.predict(samples)) == 3  # the third one's answer is not taken for this


def test_a_pipeline_may_be_given_up(agent: Path) -> None:
    samples, _ = tiny_rows(8)
    with AgentClient(agent) as client:
        for answers in client.predict_each([samples[:1]] * 20, in_flight=8):
            assert len(answers) == 1
            break
        windows = client.share(samples.shape)
        windows.array[:] = samples
        assert len(client.predict_shared(windows)) == 8
        with pytest.raises(InvalidInput, match="no such label"):
            client.feedback("0-0", "no such label")


def test_shared_windows_get_the_answers_of_sent_ones(agent: Path) -> None:
    samples, _ = tiny_rows(50)
    with AgentClient(agent) as client:
        sent = [answer.scores for answer in client.predict(samples)]
        windows = client.share(samples.shape)
        for _ in range(2):
            windows.array[:] = samples
            assert [answer.scores for answer in client.predict_shared(windows)] == sent
            samples, sent = samples[::-1], sent[::-1]
        client.unshare(windows)
        with pytest.raises(InvalidInput, match="not attached"):
            client.predict_shared(windows)
        assert len(client.predict(samples)) == 50


def test_memory_without_a_descriptor_is_refused(agent: Path) -> None:
    with AgentClient(agent) as client:
        frame = frames.encode(frames.Attach(id=5, region=1, size=64))
        client._socket.sendall(frame)
        response = client._receive_response()
        assert isinstance(response, frames.Failure)
        assert "SCM_RIGHTS" in response.message


def test_descriptors_that_nobody_asked_for_do_not_pile_up(agent: Path) -> None:
    pid = AgentPid(agent).value
    with AgentClient(agent) as client:
        client.status()
        before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        read, write = os.pipe()
        for number in range(1, 50):
            frame = frames.encode(frames.Status(id=number))
            socket.send_fds(client._socket, [frame], [read, write, read, write])
            client._receive_response()
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= before + 4
    os.close(read)
    os.close(write)


class AgentPid:
    """The process that serves on a socket, as the kernel tells."""

    def __init__(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.value = int.from_bytes(credentials[:4], sys.byteorder)


def test_a_request_that_nobody_waits_for_is_not_answered(agent: Path) -> None:
    samples, _ = tiny_rows(1)
    with AgentClient(agent, timeout=5) as client:
        rows = client.status()["rows"]
        frame = frames.Predict(
            id=9, shape=samples.shape, samples=samples.astype("<f4").tobytes(), deadline_us=1
        )
        client._send(frame)
        response = client._receive_response()
        assert isinstance(response, frames.Failure)
        assert response.kind == "DeadlineExceeded"
        assert client.status()["rows"] == rows


def test_a_model_may_be_named(agent: Path) -> None:
    samples, _ = tiny_rows(1)
    with AgentClient(agent, model="tiny-motion") as client:
        assert client.predict(samples)[0].model == "tiny-motion"
    with AgentClient(agent, model="other") as client, pytest.raises(UnknownModel, match="'other'"):
        client.predict(samples)
