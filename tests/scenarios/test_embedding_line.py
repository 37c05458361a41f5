"""A release with an embedding on the whole line: published, fetched, served, counted, taken in."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_agent.client import AgentClient
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import PackedWindow
from edge_core.stats.histogram import Histogram, Int64
from tests.simulators.lone_device import Device
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer
from tests.simulators.tiny_bundle import TARGET, tiny_rows

NAME = "watch-1"
COORDINATES = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with FleetServer(tmp_path_factory.mktemp("server"), broker="mosquitto") as found:
        yield found


def counted(server: FleetServer, release: LoadedRelease) -> Int64:
    """What the server holds of the release's model, summed over its windows."""
    found = np.zeros(release.layout.total, np.int64)
    for (body,) in server.rows("select body from windows where arm = 'incumbent'"):
        head = windows.head(codec.decode(PackedWindow, body))
        window = windows.unpack(head, release.window_schema, NAME)
        found += np.frombuffer(window.counts, "<i8")
    return found


def test_the_server_holds_what_the_device_saw_of_its_embedding(
    server: FleetServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ref = server.publish("1.0.0", coordinates=COORDINATES)
    root = (server.repository / "metadata" / "1.root.json").read_bytes()
    source: Any = SimpleNamespace(url=f"{server.url}/repository", root=root)
    device = Device(
        tmp_path_factory.mktemp("device"), source, settings="[telemetry]\nwindow_seconds = 0.3\n"
    )
    text = device.config.read_text().replace("port = 9", f"port = {server.mqtt_port}")
    device.config.write_text(text)
    device.order(ref, 0)
    samples, _ = tiny_rows(60, seed=5)
    with device.agent():
        wait_for(device.settled, seconds=40, what="the release")
        before = device.status()["rows"]
        with AgentClient(device.socket) as client:
            answers = client.predict(samples)
        assert {answer.served_by for answer in answers} == {"model"}
        release = LoadedRelease.open(server.folder / "bundles" / "1.0.0", TARGET)
        wait_for(
            lambda: counted(server, release)[release.layout.slice_of("predicted")].sum() >= 60,
            seconds=40,
            what="the rows in the statistics",
        )
    assert before == 0, "the self-test's rows are not counted"
    features = release.evaluator.evaluate(release.evaluator.quantise(samples))
    logits, embedding = release.answer(samples, features)
    expected = Histogram(release.layout)
    expected.update(samples, features, outputs.probabilities(logits), embedding)
    assert counted(server, release).tolist() == expected.counts.tolist()
