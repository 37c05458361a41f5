"""The server as a process: what it says, what it refuses, what it survives."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.messages.telemetry import Cost
from fleet_client.client import FleetClient, Refused
from fleet_server.config import RequestsConfig
from tests.simulators.device import SimulatedDevice
from tests.simulators.processes import Process, command, free_port, wait_for
from tests.simulators.server import FleetServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with FleetServer(tmp_path_factory.mktemp("server")) as found:
        yield found


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet_server", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_it_says_page_token_broker_and_repository(server: FleetServer) -> None:
    text = server.process.text()
    assert f"{server.url}/" in text
    assert "operator.token" in text
    assert f"127.0.0.1:{server.mqtt_port}" in text
    assert "mosquitto" in text or "iotcore" in text


def test_the_token_is_for_its_owner_and_stored_as_a_hash(server: FleetServer) -> None:
    file = server.data / "operator.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    for name in ("serinus.sqlite", "serinus.sqlite-wal"):
        assert secret.encode() not in (server.data / name).read_bytes()


@pytest.mark.parametrize("token", ["", "wrong", "x" * 10_000])
def test_without_a_known_token_nothing_is_answered(server: FleetServer, token: str) -> None:
    with FleetClient(server.url, token) as client, pytest.raises(Refused) as refused:
        client.devices()
    assert refused.value.status == 401
    assert "operator.token" in str(refused.value)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "devices/nobody", None, 404, "nobody"),
        ("GET", "rollouts/r99", None, 404, "r99"),
        ("POST", "rollouts/r99/pause", {}, 404, "r99"),
        ("GET", "verdicts/r99", None, 404, "r99"),
        ("POST", "verdicts/99/replay", None, 404, "99"),
        ("POST", "rollouts", {"release": "tiny-motion@9.9.9"}, 404, "not approved"),
        ("POST", "rollouts", {"release": "nonsense"}, 422, "model@1.2.3"),
        ("POST", "rollouts", {"relaese": "x"}, 422, "relaese"),
        ("POST", "rollouts", [1], 422, "body"),
        ("GET", "events?after=x", None, 422, "after"),
        ("GET", "nothing", None, 404, "Not Found"),
    ],
)
def test_what_is_refused_says_why(
    server: FleetServer, method: str, path: str, body: object, status: int, says: str
) -> None:
    token = (server.data / "operator.token").read_text().strip()
    answer = httpx.request(
        method,
        f"{server.url}/api/v1/{path}",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_a_huge_body_is_refused(server: FleetServer) -> None:
    token = (server.data / "operator.token").read_text().strip()
    answer = httpx.post(
        f"{server.url}/api/v1/rollouts",
        content=b'{"release": "' + b"x" * 200_000 + b'"}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 413


def test_the_repository_is_served_without_a_token(server: FleetServer) -> None:
    server.publish("1.0.0")
    timestamp = httpx.get(f"{server.url}/repository/metadata/timestamp.json")
    assert timestamp.status_code == 200
    assert httpx.get(f"{server.url}/repository/metadata/9.root.json").status_code == 404
    assert httpx.get(f"{server.url}/repository/metadata/../../operator.token").status_code == 404
    assert httpx.get(f"{server.url}/repository/online/snapshot.pem").status_code == 404


def test_the_page_needs_a_token_and_shows_the_fleet(server: FleetServer) -> None:
    server.publish("1.0.0")
    with httpx.Client(base_url=server.url, follow_redirects=True) as browser:
        assert "<form" in browser.get("/").text
        wrong = browser.post("/login", data={"token": "wrong"})
        assert wrong.status_code == 401
        assert "not known" in wrong.text
        token = (server.data / "operator.token").read_text().strip()
        page = browser.post("/login", data={"token": token})
        assert "tiny-motion@1.0.0" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        (cookie,) = browser.cookies.jar
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert token not in str(cookie.value)
        assert browser.get("/rollouts/r99").status_code == 404
        browser.post("/logout")
        assert "<form" in browser.get("/").text


def test_random_mqtt_bytes_are_counted_and_nothing_stops(server: FleetServer) -> None:
    before = server.client.fleet()["rejected"]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="noise")
    client.connect("127.0.0.1", server.mqtt_port)
    client.loop_start()
    for kind in ("stats", "state", "samples", "online"):
        client.publish(f"serinus/v1/up/noise/{kind}", os.urandom(500), qos=1).wait_for_publish(5)
    client.publish("serinus/v1/up/noise/stats", b"", qos=1).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()
    wait_for(
        lambda: server.client.fleet()["rejected"] == before + 5, seconds=10, what="five rejections"
    )
    assert {row["device"] for row in server.client.rejected()} == {"noise"}


def test_a_killed_server_comes_back_on_its_ports(server: FleetServer) -> None:
    server.restart()
    server.restart()
    assert "in use" not in server.process.text()


def test_a_second_server_on_the_same_data_is_refused(server: FleetServer) -> None:
    done = start("run", "--config", server.settings)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "another server" in done.stderr


@pytest.mark.parametrize("which", ["http", "mqtt"])
def test_a_busy_port_is_one_clear_line(tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        port, mqtt_port = (busy, free_port()) if which == "http" else (free_port(), busy)
        settings = tmp_path / "s.toml"
        settings.write_text(f'data_dir = "{tmp_path}"\nport = {port}\n[mqtt]\nport = {mqtt_port}\n')
        done = start("run", "--config", settings)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(busy) in done.stderr
    assert "Traceback" not in done.stderr


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "serinus.sqlite")
    connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
    connection.execute("INSERT INTO schema_version VALUES (99)")
    connection.commit()
    connection.close()
    settings = tmp_path / "s.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\nport = {free_port()}\n')
    done = start("run", "--config", settings)
    assert done.returncode == 2
    assert "schema version 99" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "serinus.sqlite").write_bytes(b"not a database" * 1000)
    settings = tmp_path / "s.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\nport = {free_port()}\n')
    done = start("run", "--config", settings)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "serinus.sqlite" in done.stderr


def test_wrong_use_ends_with_one() -> None:
    done = start("rnu")
    assert done.returncode == 1
    assert "rnu" in done.stderr


def test_a_viewer_may_look_and_nothing_else(server: FleetServer) -> None:
    server.publish("1.0.0")
    made = start("token", "screen", "--role", "viewer", "--config", server.settings)
    assert made.returncode == 0, made.stderr
    with FleetClient(server.url, made.stdout.strip()) as viewer:
        assert viewer.releases()
        with pytest.raises(Refused, match="operator") as refused:
            viewer.start_rollout("tiny-motion@1.0.0")
    assert refused.value.status == 403


def test_a_rollout_without_devices_is_refused(server: FleetServer) -> None:
    server.publish("1.0.0")
    with pytest.raises(Refused, match="no device could run") as refused:
        server.client.start_rollout("tiny-motion@1.0.0")
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"delta": 2}, "delta"),
        ({"stages": []}, "stages"),
        ({"stages": [{"kind": "leap", "share": 1}]}, "leap"),
        ({"detla": 0.1}, "detla"),
        ({"v": 9}, "version"),
        (
            {"stages": [{"kind": "ramp", "share": 1}, {"kind": "canary", "share": 1}]},
            "shadow over canary",
        ),
    ],
)
def test_a_bad_plan_is_refused_by_name(
    server: FleetServer, plan: dict[str, object], says: str
) -> None:
    server.publish("1.0.0")
    with pytest.raises(Refused, match=says) as refused:
        server.client.start_rollout("tiny-motion@1.0.0", plan)
    assert refused.value.status == 422
    assert "\n" not in str(refused.value)


def test_without_a_repository_it_starts_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "s.toml"
    settings.write_text(
        f'data_dir = "{tmp_path}/data"\nport = {port}\n[mqtt]\nport = {free_port()}\n'
    )
    with Process(
        [*command("serinus-server"), "run", "--config", str(settings)], tmp_path / "log"
    ) as server:
        server.wait_for_text("no approved releases yet")
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/healthz"), seconds=10, what="the server")
        assert httpx.get(f"{url}/repository/metadata/timestamp.json").status_code == 404
        assert server.stop() == 0
        assert "Traceback" not in server.text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_cost_and_consumers_are_told(server: FleetServer) -> None:
    ref = server.publish("1.0.0")
    world = server.world("1.0.0", lambda release, side: 1.0)
    device = SimulatedDevice("payer", "left", world, server.mqtt_port, seed=1)
    try:
        spent = Cost(cpu_us=200, sent_bytes=50, span_ms=3_600_000, consumers={"till": 10})
        device.send(device.window(ref, rows=10, cost=spent))
        wait_for(lambda: bool(server.client.cost()), seconds=10, what="a cost")
    finally:
        device.stop()
    (row,) = server.client.cost()
    assert (row["release"], row["predictions"]) == (ref.name, 10)
    assert (row["cpu_us_per_prediction"], row["bytes_per_device_hour"]) == (20, 50)
    (consumer,) = server.client.consumers()
    assert (consumer["model"], consumer["consumer"], consumer["rows"]) == (ref.model, "till", 10)


def test_behind_a_proxy_callers_are_told_apart_by_what_it_says(tmp_path: Path) -> None:
    server = FleetServer(tmp_path)
    server.settings.write_text(server.settings.read_text() + '[tls]\nmode = "proxy"\n')

    def guess(number: int, address: str) -> int:
        headers = {"X-Forwarded-For": address}
        form = {"token": f"guess{number}"}
        return httpx.post(f"{server.url}/login", data=form, headers=headers).status_code

    with server:
        most = RequestsConfig().refused_per_minute
        codes = [guess(number, "192.0.2.1") for number in range(most + 1)]
        assert (codes[0], codes[-1]) == (401, 429)
        assert guess(0, "192.0.2.2") == 401
