"""The link on a real broker."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.publish as paho
import pytest

from edge_agent.config import Mqtt
from edge_agent.mqtt import Connected, Disconnected, Link, LinkEvent, Received
from edge_core.messages import topics
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from tests.simulators.processes import free_port


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    found = free_port()
    broker = Broker(MqttConfig(port=found), tmp_path).start()
    yield found
    broker.stop()


async def heard(link: Link, kind: type[LinkEvent]) -> LinkEvent:
    while True:
        link.keep_running()
        try:
            event = await asyncio.wait_for(link.events.get(), 0.2)
        except TimeoutError:
            continue
        if isinstance(event, kind):
            return event


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # paho leaves its old pair of sockets
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_that_an_error_ends_begins_again_and_what_it_had_in_hand_comes_again(
    port: int,
) -> None:
    class Short(Link):
        """Memory does not suffice for the first message."""

        failed = 0

        def _on_message(self, client: object, userdata: object, message: object) -> None:
            if not self.failed:
                self.failed += 1
                raise MemoryError
            super()._on_message(client, userdata, message)  # type: ignore[arg-type]

    async def run() -> None:
        link = Short(Mqtt(host="127.0.0.1", port=port), "d")
        link.start()
        await heard(link, Connected)
        link.subscribe()
        await asyncio.sleep(0.3)
        paho.single(topics.down("d", "desired"), b"wish", qos=1, port=port)
        gone = await heard(link, Disconnected)
        assert isinstance(gone, Disconnected)
        assert "ended by an error" in gone.reason
        await heard(link, Connected)
        received = await heard(link, Received)
        assert isinstance(received, Received)
        assert received.payload == b"wish"
        assert link.failed == 1
        await link.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
