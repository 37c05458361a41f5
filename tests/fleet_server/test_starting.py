"""In which order the server's parts begin."""

from typing import Any

import pytest

from edge_core.errors import Unavailable
from edge_core.release import ReleaseRef
from fleet_server import running as program
from fleet_server.config import MqttConfig, ServerConfig
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.services.suite import Services
from tests.simulators.processes import free_port


def test_releases_are_known_before_the_broker_delivers_what_it_kept(
    config: ServerConfig, repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref: ReleaseRef = repository.publish("1.0.0")
    opened: list[Services] = []
    known: list[dict[str, bool]] = []

    class Watched(Services, frozen=True, kw_only=True):
        @classmethod
        def open(cls, *arguments: Any) -> Services:
            opened.append(Services.open(*arguments))
            return opened[0]

    def start(_: MqttGateway) -> None:
        known.append(opened[0].catalog.known())
        raise Unavailable("enough was seen")

    monkeypatch.setattr(program, "Services", Watched)
    monkeypatch.setattr(MqttGateway, "start", start)
    mqtt = MqttConfig(broker="external", port=free_port())
    with pytest.raises(Unavailable, match="enough was seen"):
        program.run(ServerConfig(data_dir=str(config.data), port=free_port(), mqtt=mqtt))
    assert known == [{ref.digest: True}]
