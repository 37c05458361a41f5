"""Alert rules and dashboard, by Prometheus itself and against what a real server tells."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.simulators.processes import Process, free_port, wait_for
from tests.simulators.server import FleetServer

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/alerts.yml"
CASES = ROOT / "packaging/prometheus/alerts_test.yml"
SETTINGS = ROOT / "packaging/prometheus/prometheus.yml"
DASHBOARD = ROOT / "packaging/grafana/serinus.json"
SUFFIXES = {
    "histogram": ("_bucket", "_sum", "_count"),
    "counter": ("_total",),
    "gauge": ("",),
}
OVER_TLS = {"serinus_certificate_seconds_left"}
"""What only a server with a certificate tells: ``tests/scenarios/test_enrolled_device.py``."""
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> dict[str, str]:
    """Title and letter of each query of the dashboard -> PromQL."""
    found = {}
    for panel in panels():
        for query in panel.get("targets", []):
            text = query["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            found[f"{panel['title']} {query['refId']}"] = text
    return found


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def names(texts: list[str]) -> set[str]:
    return {name for text in texts for name in re.findall(r"\bserinus_[a-z0-9_]+", text)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with FleetServer(tmp_path_factory.mktemp("server")) as found:
        yield found


def test_the_rules_pass_their_own_tests(prometheus: None) -> None:
    for arguments in (("check", "rules", str(RULES)), ("check", "config", str(SETTINGS))):
        done = tool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    done = tool("test", "rules", str(CASES))
    assert done.returncode == 0, done.stdout + done.stderr


def never(rule: dict[str, Any]) -> None:
    rule["expr"] = "vector(0) > 1"


def at_once(rule: dict[str, Any]) -> None:
    rule.pop("for", None)
    rule["expr"] = f"({rule['expr']}) or vector(1)"


@pytest.mark.parametrize("change", [never, at_once])
def test_a_rule_that_never_or_always_fires_fails_the_tests(
    prometheus: None, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """All of them are changed at once: the tool names each expression that is not as expected."""
    whole = yaml.safe_load(RULES.read_text())
    for group in whole["groups"]:
        for rule in group["rules"]:
            change(rule)
    (tmp_path / CASES.name).write_text(CASES.read_text())
    (tmp_path / RULES.name).write_text(yaml.safe_dump(whole))
    done = tool("test", "rules", str(tmp_path / CASES.name))
    assert done.returncode != 0
    failed = set(re.findall(r'expr: "ALERTS\{alertname=\\?"(\w+)', done.stdout + done.stderr))
    assert failed == {rule["alert"] for rule in rules()}


def test_every_rule_says_how_grave_it_is_what_to_do_and_where_to_read() -> None:
    cases = CASES.read_text()
    for rule in rules():
        name, notes = rule["alert"], rule["annotations"]
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        for kind in ("summary", "action"):
            assert re.fullmatch(r"[A-Z{].*\.", notes[kind]), (name, kind)
        page, _, heading = notes["docs"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not heading or heading in anchors, (name, heading)
        (fires,) = set(re.findall(rf'labels: ALERTS{{alertname="{name}",(.*)}}', cases))
        told = set(re.findall(r'(\w+)="', fires))
        asked = set(re.findall(r"\$labels\.(\w+)", " ".join(notes.values())))
        assert asked <= told, (name, "its texts name labels that it does not have")


def test_every_metric_that_is_asked_for_is_told_by_a_real_server(server: FleetServer) -> None:
    told = set()
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        told |= {family.name + suffix for suffix in SUFFIXES[family.type]}
    asked = names([rule["expr"] for rule in rules()]) | names([DASHBOARD.read_text()])
    assert len(asked) > 30
    assert asked - told == OVER_TLS
    forgotten = {name for name in told if name.startswith("serinus_")} - asked
    assert {name for name in forgotten if not name.endswith(("_sum", "_count", "_bucket"))} == set()


def test_the_dashboard_can_be_imported() -> None:
    whole = json.loads(DASHBOARD.read_text())
    assert whole["schemaVersion"] == 39
    assert whole["id"] is None
    variables = {one["name"]: one for one in whole["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    assert [panel["title"] for panel in found if panel["type"] == "row"] == [
        "Fleet",
        "Rollouts and evidence",
        "Drift, alerts, incidents",
        "Ingest",
        "API latency",
        "Process",
    ]
    for panel in found:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            for query in panel["targets"]:
                assert query["expr"].strip(), panel["title"]
                assert query["datasource"]["uid"] == "${datasource}"
    assert overlaps(found) == []


def overlaps(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Titles of panels that lie on one another, or beyond the edge."""
    cells: dict[tuple[int, int], str] = {}
    wrong = []
    for panel in found:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = cells.setdefault((x, y), panel["title"])
                if other != panel["title"] or x >= 24:
                    wrong.append((other, panel["title"]))
    return wrong


def test_a_real_prometheus_scrapes_the_server_and_answers_every_query(
    prometheus: None, server: FleetServer, tmp_path: Path
) -> None:
    settings = SETTINGS.read_text().replace("127.0.0.1:8321", f"127.0.0.1:{server.port}")
    settings = settings.replace("15s", "1s").replace("12s", "1s")
    (tmp_path / "prometheus.yml").write_text(settings)
    (tmp_path / RULES.name).write_text(RULES.read_text())
    port = free_port()
    arguments = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        Process(arguments, tmp_path / "prometheus.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as ask,
    ):

        def asked(query: str) -> Any:
            return ask.get("/query", params={"query": query}).json()

        def scraped() -> bool:
            try:
                ready = ask.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200
            except httpx.HTTPError:
                return False
            return ready and bool(asked("serinus_ready == 1")["data"]["result"])

        wait_for(scraped, seconds=60, what="Prometheus to scrape")
        for where, query in expressions().items():
            assert asked(query)["status"] == "success", where
        told = {where for where, query in expressions().items() if asked(query)["data"]["result"]}
        assert {"Ready A", "Somebody leads A", "Leads A", "Memory A", "Open alerts A"} <= told

        def evaluated() -> list[dict[str, Any]]:
            groups = ask.get("/rules").json()["data"]["groups"]
            return [rule for group in groups for rule in group["rules"]]

        wait_for(
            lambda: all(rule["health"] != "unknown" for rule in evaluated()),
            seconds=60,
            what="every rule to be evaluated",
        )
        assert {rule["health"] for rule in evaluated()} == {"ok"}
        assert [rule["name"] for rule in evaluated() if rule["state"] == "firing"] == []
