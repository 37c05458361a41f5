"""The operators' command: one clear line for everything that goes wrong."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_client.cli import app
from fleet_client.client import FleetClient, Refused
from fleet_client.views import consumers, cost, devices, history, releases
from tests.simulators.processes import command, free_port


def serinus(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent.parent
    return subprocess.run(
        [*command("serinus"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(root), "SERINUS_TOKEN": "t"},
        timeout=60,
    )


class Strange(BaseHTTPRequestHandler):
    """A web server that is not ours."""

    def do_GET(self) -> None:
        body = {"/api/v1/devices": b"[1]", "/api/v1/releases": b"<html>"}.get(
            self.path.partition("?")[0], b""
        )
        self.send_response(200 if body else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Strange)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--url", "http://127.0.0.1:{port}", "devices"], 2, "serinus-server run"),
        (["--url", "nonsense", "devices"], 2, "http://127.0.0.1:8321"),
        (["--token-file", "missing.token", "devices"], 2, "missing.token"),
        (["rollout", "start", "m@1.0.0", "--plan", "missing.json"], 2, "missing.json"),
        (["rollout", "start", "m@1.0.0", "--plan", "bad.json"], 2, "bad.json"),
        (["rollout", "start", "m@1.0.0", "--plan", "list.json"], 2, "object"),
        (["devics"], 1, "devics"),
        (["rollout", "start"], 1, "release"),
        (["verdict", "replay", "x"], 1, "integer"),
    ],
)
def test_every_mistake_is_one_line(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    port = str(free_port())
    done = serinus(*(word.replace("{port}", port) for word in arguments), cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_help_and_completion_are_offered(tmp_path: Path) -> None:
    help_text = serinus("--help", cwd=tmp_path).stdout
    for word in ("devices", "releases", "rollout", "production", "alerts", "completion"):
        assert word in help_text
    assert serinus(cwd=tmp_path).returncode == 1


def test_no_server_and_strange_servers_are_told_apart(stranger: str) -> None:
    nobody = FleetClient(f"http://127.0.0.1:{free_port()}", "t")
    with nobody, pytest.raises(Unavailable, match="no Serinus server answers"):
        nobody.devices()
    with FleetClient(stranger, "t") as client:
        with pytest.raises(Unavailable, match="does not answer as"):
            client.devices()
        with pytest.raises(Unavailable, match="does not answer as"):
            client.releases()
        with pytest.raises(Refused, match="500"):
            client.alerts()


@pytest.mark.parametrize("url", ["", "ftp://x", "127.0.0.1:8321", "http://[bad"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration):
        FleetClient(url, "t")


def test_names_cannot_leave_their_path(stranger: str) -> None:
    with FleetClient(stranger, "t") as client, pytest.raises(Refused):
        client.device("../../releases")


def test_gates_that_did_not_pass_are_named_with_their_waivers() -> None:
    gates = [
        {"gate": "slices", "outcome": "no_evidence", "slice": "side=right"},
        {"gate": "size", "outcome": "passed", "slice": None},
    ]
    waivers = [{"gate": "slices", "slice": "side=right", "reason": "shown on purpose"}]
    text = releases.gates(gates, waivers).plain
    assert "1 of 2 passed" in text
    assert "slices side=right: no evidence" in text
    assert "shown on purpose" in text


COST = {
    "release": "tiny@1.0.0",
    "digest": "0" * 64,
    "target": "cpu-x86_64-ort",
    "predictions": 1000,
    "inferences": 900,
    "cached": 60,
    "fallbacks": 40,
    "cpu_us_per_prediction": 20.5,
    "shadow_cpu_us_per_row": None,
    "bytes_per_device_hour": 441.25,
    "labels": 7,
    "per_thousand": None,
    "spent": None,
    "currency": "",
}
MONEY = {"device": 1.0, "shadow": 0.0, "traffic": 0.25, "labels": 0.0, "total": 1.25}


def printed(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_cost_shows_what_was_measured_and_nothing_else() -> None:
    free = printed(cost.cost([COST])).splitlines()[1].split()
    assert free == ["tiny@1.0.0", "cpu-x86_64-ort", "1,000", "60", "40", "7", "20.5", "441"]
    priced = COST | {"per_thousand": MONEY, "spent": MONEY, "currency": "EUR"}
    told = printed(cost.cost([priced])).splitlines()[1].split()
    assert told[-7:] == ["1", "0.25", "0", "1.25", "EUR", "1.25", "EUR"]


def test_budgets_say_what_is_exceeded_and_what_nothing_was_counted_for() -> None:
    row = {"model": "tiny", "span": "day", "amount": 2.0, "currency": "EUR", "set_by": "olga"}
    told = (
        {"spent": 2.5, "expected": 5.0, "exceeded": True},
        {"spent": None, "expected": None, "exceeded": False},
    )
    over, unknown = printed(cost.budgets([row | each for each in told])).splitlines()[1:]
    assert over.split() == ["tiny", "today", "2.5", "2", "EUR", "5", "exceeded", "olga"]
    assert "set prices" in unknown


def test_cost_of_a_shadow_has_no_price_and_large_numbers_no_exponent() -> None:
    row = COST | {
        "predictions": 0,
        "cpu_us_per_prediction": None,
        "shadow_cpu_us_per_row": 12.5,
        "bytes_per_device_hour": 13422.4,
        "currency": "EUR",
    }
    assert printed(cost.cost([row])).splitlines()[1].split()[-2:] == ["12.5", "13,422"]


def test_history_shows_each_course_and_every_hour() -> None:
    hour = {
        "release": "tiny@1.0.0",
        "arm": "incumbent",
        "rows": 7,
        "errors": 0,
        "fallbacks": {},
        "estimated": {"accuracy": 0.8, "low": 0.7, "high": 0.9},
    }
    rows = [
        hour | {"start_ms": 3_600_000 * n, "right": n, "wrong": 4 - n, "accuracy": n / 4}
        for n in (0, 4, 2)
    ]
    course, _, *lines = printed(history.history(rows)).splitlines()
    assert course.split() == ["tiny@1.0.0", "incumbent", "▁█▅", "accuracy", "0", "to", "1"]
    assert lines[1].split() == [
        "1970-01-01",
        "04:00:00Z",
        "tiny@1.0.0",
        "incumbent",
        "7",
        "4",
        "1.000",
        "0.800",
        "(0.700-0.900)",
    ]
    unlabelled = [row | {"right": 0, "wrong": 0, "accuracy": None} for row in rows]
    assert "▁▁▁  rows 7 to 7" in printed(history.history(unlabelled))
    assert printed(history.history([])).count("\n") == 1


CONSUMER: dict[str, object] = {
    "model": "tiny",
    "consumer": "pager",
    "rows": 7,
    "first_ms": 0,
    "last_ms": 0,
    "declared": False,
    "owner": "",
    "note": "",
    "acknowledged": [],
}


def test_consumers_are_listed_by_model() -> None:
    row = CONSUMER | {"consumer": "uid 1000", "last_ms": 86_400_000}
    assert "uid 1000            7  1970-01-01" in printed(consumers.consumers([row]))
    assert "not declared" in printed(consumers.consumers([row]))
    known = row | {"declared": True, "owner": "the ward", "acknowledged": [1, 2]}
    assert "the ward  1.x, 2.x" in printed(consumers.consumers([known]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "waiting"),
        ({"sent_ms": 1}, "sent"),
        ({"sent_ms": 1, "expires_ms": 5000}, "never answered"),
        ({"sent_ms": 1, "expires_ms": 5000, "outcome": "done"}, "done"),
        ({"outcome": "refused", "detail": "no room"}, "refused  no room"),
    ],
)
def test_a_command_says_what_became_of_it(changes: dict[str, object], told: str) -> None:
    row = {
        "command": "c1",
        "device": "d1",
        "kind": "fallback_on",
        "model": "tiny",
        "issued_by": "anna",
        "until_ms": None,
        "expires_ms": 5001,
        "sent_ms": None,
        "outcome": None,
        "detail": "",
        "reason": "storm",
    }
    words = printed(devices.commands([row | changes], 5000)).splitlines()[1].split()
    assert words[-len(told.split()) - 1 :] == [*told.split(), "storm"]
    assert words[-len(told.split()) - 2] == "anna"


def test_what_a_device_says_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    row = CONSUMER | {"consumer": "a\x1b[2Jb\x9bc\nd"}
    monkeypatch.setattr(FleetClient, "consumers", lambda _: [row])
    done = CliRunner().invoke(app, ["--token", "t", "consumers"])
    assert done.exit_code == 0, done.output
    assert "a\ufffd[2Jb\ufffdc" in done.output
    assert not {"\x1b", "\x9b"} & set(done.output)
