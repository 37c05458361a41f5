"""'Seasonal fallback now': from an operator's order to the very next answer, over a real broker."""

import re
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from paho.mqtt import publish
from typer.testing import CliRunner

from edge_agent.client import AgentClient
from edge_core.bundle import manifest as manifests
from edge_core.features import definition as definitions
from edge_core.messages import codec, topics, windows
from edge_core.messages.telemetry import PackedWindow
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import histogram
from fleet_client.cli import app
from fleet_client.client import FleetClient, Refused
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.server import FleetServer
from tests.simulators.tiny_bundle import tiny_rows

NAME = "watch-1"
MODEL = "tiny-motion"
CAUSES = ("missing", "error", "breaker", "command")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with FleetServer(tmp_path_factory.mktemp("server"), broker="mosquitto") as found:
        yield found


@pytest.fixture(scope="module")
def device(server: FleetServer, tmp_path_factory: pytest.TempPathFactory) -> Device:
    """Settings and orders of a device that serves the first release."""
    ref = server.publish("1.0.0")
    root = (server.repository / "metadata" / "1.root.json").read_bytes()
    source: Any = SimpleNamespace(url=f"{server.url}/repository", root=root)
    found = Device(
        tmp_path_factory.mktemp("device"), source, settings="[telemetry]\nwindow_seconds = 0.3\n"
    )
    text = found.config.read_text().replace("port = 9", f"port = {server.mqtt_port}")
    found.config.write_text(text)
    found.order(ref, 0)
    return found


@pytest.fixture(scope="module")
def agent(device: Device, server: FleetServer) -> Iterator[Process]:
    """The agent as a process, connected and serving its model."""
    with device.agent() as process:
        wait_for(device.settled, seconds=40, what="the release")
        wait_for(lambda: bool(device.status().get("connected")), seconds=40, what="the broker")
        yield process


@pytest.fixture(autouse=True)
def ended(server: FleetServer, device: Device, agent: Process) -> Iterator[None]:
    """No order outlasts its test."""
    yield
    if answer(device)[0] == "fallback":
        server.client.fallback_off([NAME])
        wait_for(lambda: answer(device)[0] == "model", seconds=40, what="the end of the order")


def answer(device: Device) -> tuple[str, str]:
    """Who answers now, and why."""
    with AgentClient(device.socket) as client:
        [found] = client.predict(tiny_rows(1)[0])
    return found.served_by, found.cause


def outcome(server: FleetServer, number: str) -> str | None:
    rows = {row["command"]: row for row in server.client.commands(NAME)}
    return rows[number]["outcome"]


def schema_of(server: FleetServer) -> WindowSchema:
    """Of the only release."""
    [(version, digest, manifest, features, reference)] = server.rows(
        "select version, digest, manifest, features, reference from releases"
    )
    return WindowSchema.of(
        ReleaseRef(model=MODEL, version=version, digest=digest),
        manifests.parse(manifest),
        histogram.parse(reference),
        definitions.parse(features).raw_shape[0],
    )


def fallback_causes(server: FleetServer) -> dict[str, int]:
    found = {"command": 0, "missing": 0}
    schema = schema_of(server)
    for (body,) in server.rows("select body from windows where arm = 'fallback'"):
        head = windows.head(codec.decode(PackedWindow, body))
        window = windows.unpack(head, schema, NAME)
        assert window.fallbacks is not None
        assert window.rows == sum(getattr(window.fallbacks, name) for name in CAUSES)
        found["command"] += window.fallbacks.command
        found["missing"] += window.fallbacks.missing
    return found


def test_one_order_lets_the_baseline_answer_over_restarts_until_it_is_ended(
    server: FleetServer, device: Device, agent: Process
) -> None:
    assert answer(device) == ("model", "")
    [ordered] = server.client.fallback_on([NAME], reason="the season turned")
    assert (ordered["device"], ordered["model"], ordered["outcome"]) == (NAME, MODEL, None)
    wait_for(lambda: outcome(server, ordered["command"]) == "done", seconds=40, what="the outcome")
    assert answer(device) == ("fallback", "command"), "the very next answer"
    [mode] = server.client.device(NAME)["reported"]["fallbacks"]
    assert (mode["model"], mode["cause"]) == (MODEL, "command")
    assert mode["reason"] == "the season turned"
    assert device.status()["answers"] == "fallback by command"
    agent.kill()
    agent.start()
    wait_for(lambda: bool(device.status()), seconds=40, what="the agent")
    wait_for(lambda: device.status().get("active") is not None, seconds=40, what="the release")
    assert answer(device) == ("fallback", "command"), "kept over kill -9"
    wait_for(
        lambda: fallback_causes(server)["command"] == 1, seconds=40, what="statistics by cause"
    )
    [ended] = server.client.fallback_off([NAME])
    wait_for(lambda: outcome(server, ended["command"]) == "done", seconds=40, what="the outcome")
    assert answer(device) == ("model", "")
    assert server.client.device(NAME)["reported"]["fallbacks"] == []


def test_one_message_is_enough(server: FleetServer, device: Device, agent: Process) -> None:
    [ordered] = server.client.fallback_on([NAME], for_seconds=3600)
    wait_for(lambda: answer(device)[0] == "fallback", seconds=40, what="the baseline")
    wait_for(lambda: outcome(server, ordered["command"]) == "done", seconds=40, what="the outcome")
    [taken] = [line for line in agent.text().splitlines() if ordered["command"] in line]
    assert taken.endswith(f"command {ordered['command']}: done"), "carried out once"
    assert device.status()["fallback_until_ms"] == ordered["until_ms"]


def test_an_order_waits_for_a_device_that_is_away(
    server: FleetServer, device: Device, agent: Process
) -> None:
    agent.stop()
    [ordered] = server.client.fallback_on([NAME])
    assert outcome(server, ordered["command"]) is None
    agent.start()
    wait_for(lambda: outcome(server, ordered["command"]) == "done", seconds=40, what="the outcome")
    assert answer(device) == ("fallback", "command")


def test_what_is_no_command_is_counted_and_changes_nothing(
    server: FleetServer, device: Device, agent: Process
) -> None:
    before = int(device.status()["refused_messages"] or 0)
    topic = topics.down(NAME, "command")
    for payload in (b"", b"noise", b"\x81\xa1v\x02", bytes(60_000)):
        publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=server.mqtt_port)
    wait_for(
        lambda: device.status()["refused_messages"] == before + 4, seconds=40, what="four refusals"
    )
    assert answer(device) == ("model", "")


def test_missing_inputs_are_answered_by_the_baseline_and_counted(
    server: FleetServer, device: Device, agent: Process
) -> None:
    samples = tiny_rows(3)[0].copy()
    samples[1, 2, 0] = float("nan")
    before = fallback_causes(server)["missing"]
    with AgentClient(device.socket) as client:
        found = [(a.served_by, a.cause) for a in client.predict(samples)]
    assert found == [("model", ""), ("fallback", "missing"), ("model", "")]
    wait_for(
        lambda: fallback_causes(server)["missing"] == before + 1,
        seconds=40,
        what="the row in the statistics",
    )


def test_people_order_by_the_command_line_and_see_it_on_the_page(
    server: FleetServer, device: Device, agent: Process
) -> None:
    runner = CliRunner()
    base = ["--url", server.url, "--token-file", str(server.data / "operator.token")]
    done = runner.invoke(app, [*base, "fallback", "on", NAME, "--reason", "storm", "--for", "2h"])
    assert done.exit_code == 0, done.output
    assert re.search(rf"{NAME} .*fallback on .*{MODEL} .*storm", done.output)
    wait_for(lambda: answer(device)[0] == "fallback", seconds=40, what="the baseline")
    listed = runner.invoke(app, [*base, "fallback", "log", NAME])
    assert "storm" in listed.output
    wait_for(
        lambda: "the baseline answers" in page_of(server, f"/devices/{NAME}"),
        seconds=40,
        what="the device's report on its page",
    )
    assert "storm" in page_of(server, f"/devices/{NAME}")
    assert runner.invoke(app, [*base, "fallback", "off", NAME]).exit_code == 0
    wait_for(lambda: answer(device)[0] == "model", seconds=40, what="the model")


def page_of(server: FleetServer, path: str) -> str:
    token = (server.data / "operator.token").read_text().strip()
    with httpx.Client(base_url=server.url) as browser:
        browser.post("/login", data={"token": token})
        return browser.get(path).text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"kind": "reboot"}, 422, "known are fallback_on"),
        ({"kind": "fallback_on", "for_seconds": 0}, 422, "1 s"),
        ({"kind": "fallback_on", "for_seconds": 1e12}, 422, "366 days"),
        ({"kind": "fallback_off", "for_seconds": 60}, 422, "only fallback_on"),
        ({"kind": "fallback_on", "reason": "two\nlines"}, 422, "printable"),
        ({"kind": "fallback_on", "reason": "x" * 501}, 422, "reason"),
        ({"kind": "fallback_on", "model": "../m"}, 422, "no model"),
        ({"kind": "fallback_on", "surprise": 1}, 422, "surprise"),
    ],
)
def test_what_no_device_could_do_is_refused(
    server: FleetServer,
    device: Device,
    agent: Process,
    body: dict[str, Any],
    status: int,
    says: str,
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        server.client._call("POST", f"devices/{NAME}/commands", json=body)
    assert refused.value.status == status


def test_unknown_devices_refuse_the_whole_order(
    server: FleetServer, device: Device, agent: Process
) -> None:
    before = len(server.client.commands(NAME))
    with pytest.raises(Refused, match="'nobody' has reported"):
        server.client.fallback_on([NAME, "nobody"])
    assert len(server.client.commands(NAME)) == before


def test_viewers_may_look_and_not_order(
    server: FleetServer, device: Device, agent: Process
) -> None:
    made = subprocess.run(
        [*command("serinus-server"), "token", "--config", str(server.settings), "eve"],
        capture_output=True,
        text=True,
        check=True,
    )
    with FleetClient(server.url, made.stdout.strip()) as viewer:
        assert isinstance(viewer.commands(NAME), list)
        with pytest.raises(Refused, match="this needs operator") as refused:
            viewer.fallback_on([NAME])
    assert refused.value.status == 403
