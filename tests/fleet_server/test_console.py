"""Pages on alerts, incidents, labels and decisions, of a real server and at their edges."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from converters import publishing
from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from fleet_server.config import ServerConfig
from fleet_server.console import plots, wording
from fleet_server.console.rendering import SESSION_COOKIE
from fleet_server.services import audit_log
from fleet_server.services.clock import wall_clock
from fleet_server.services.fairness import EVERY_MS
from fleet_server.storage import audit, journal
from tests.fleet_server.test_audit_log import tamper
from tests.fleet_server.test_fairness_watch import labelled
from tests.fleet_server.test_incidents import rolled_back
from tests.fleet_server.test_labels import sample, send, told
from tests.fleet_server.test_people_steer import NAMES
from tests.simulators.enrolling import Applicant
from tests.simulators.server import FleetServer
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import tiny_bundle

BACKENDS = ("sqlite", "postgresql")
PAGES = (
    "/alerts",
    "/incidents",
    "/incidents/1",
    "/labels",
    "/labels/tiny-motion",
    "/certificates",
    "/decisions",
)
HOUR = 3_600_000
DAY = 24 * HOUR


class Past:
    """A clock that began two days ago."""

    def __init__(self) -> None:
        self.now = wall_clock() - 48 * HOUR

    def __call__(self) -> int:
        return self.now


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    """A server that starts on what two days have left: a rollback, a hurt slice, late labels."""
    found = FleetServer(tmp_path_factory.mktemp("server"))
    with SpokenFleet(ServerConfig(data_dir=str(found.data)), Past()) as fleet:
        happen(fleet, found)
    with found:
        yield found


def published(server: FleetServer, version: str, seed: int) -> ReleaseRef:
    bundle = tiny_bundle(
        server.folder / version, version=version, seed=seed,
        sign_with=server.keys / "statement.pem",
    )  # fmt: skip
    return publishing.publish(bundle, server.repository, server.keys, datetime.now(UTC))


def happen(fleet: SpokenFleet, server: FleetServer) -> None:
    services = fleet.services
    old = fleet.approve(published(server, "1.0.0", 0))
    fleet.produce(old, NAMES)
    hurt(fleet, old)
    rolled_back(fleet, fleet.approve(published(server, "1.1.0", 1)))
    fleet.clock.now += 2000
    services.incidents.collect()
    fleet.obey()
    fleet.decide(1800)
    services.incidents.collect()
    (number,) = (r.incident for r in services.incidents.every(9) if r.kind == "rollback")
    services.incidents.note(number, "a note with <b>markup</b>", by="anna", role="operator")
    services.incidents.resolve(number, "a golden vector", by="anna", role="operator")
    late_labels(fleet, old)


def hurt(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    for number in range(40):
        labelled(fleet, ref, f"r{number}", "right", 90, 10)
    for number in range(10):
        labelled(fleet, ref, f"l{number}", "left", 50, 50)
    fleet.clock.now += EVERY_MS
    fleet.services.fairness.watch()


def late_labels(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    """Labels after 10 s, and some hours later: nothing in between."""
    send(fleet, *(sample(ref, fleet, f"p-{number}") for number in range(8)))
    fleet.clock.now += 10_000
    fleet.services.labels.take([told(f"p-{n}", "still") for n in range(3)], "clinic")
    fleet.clock.now += 6 * HOUR
    fleet.services.labels.take([told(f"p-{n}", "tilt") for n in range(3, 8)], "clinic")


@pytest.fixture
def browser(server: FleetServer) -> Iterator[httpx.Client]:
    token = (server.data / "operator.token").read_text().strip()
    with httpx.Client(base_url=server.url, follow_redirects=True) as found:
        found.post("/login", data={"token": token}).raise_for_status()
        yield found


@pytest.fixture
def read(fleet: SpokenFleet) -> Iterator[TestClient]:
    """Somebody who may only look."""
    with TestClient(create_app(fleet.config, fleet.services)) as found:
        let_in(fleet, found, "viewer")
        yield found


def let_in(fleet: SpokenFleet, browser: TestClient, role: str) -> None:
    tokens = fleet.services.tokens
    browser.cookies.clear()
    browser.cookies.set(SESSION_COOKIE, tokens.log_in(tokens.create("vera", role)))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_for_people_with_a_token_and_runs_nothing(
    server: FleetServer, browser: httpx.Client, path: str
) -> None:
    stranger = httpx.get(f"{server.url}{path}")
    assert (stranger.status_code, stranger.headers["location"]) == (303, "/login")
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for forbidden in ("<script", " style=", "<style", "javascript:"):
        assert forbidden not in answer.text
    for place in ("alerts", "incidents", "labels", "certificates", "decisions"):
        assert f'href="/{place}"' in answer.text


def test_alerts_say_what_is_open_what_is_over_and_which_incident_is_theirs(
    browser: httpx.Client,
) -> None:
    shown = browser.get("/alerts").text
    assert "is right on 50.0% of 1000 labelled rows of side=left" in shown
    assert "1.1.0 is rolled back" in shown
    assert 'href="/incidents/1">incident 1' in shown
    assert "30 min" in shown, "how long the rollback's alert was open"
    only = browser.get("/alerts?kind=fairness").text
    assert "side=left" in only
    assert "is rolled back" not in only


def test_an_incident_shows_what_it_did_and_its_timeline_in_order(browser: httpx.Client) -> None:
    every = browser.get("/incidents").text
    assert "a golden vector" in every
    shown = browser.get("/incidents/1").text
    told_in_order = [
        "rollout r1 started by ann",
        "refuses tiny-motion@1.1.0",
        "its alert has closed",
        "a note with &lt;b&gt;markup",
        "resolved: a golden vector",
    ]
    places = [shown.index(text) for text in told_in_order]
    assert places == sorted(places)
    for text in (">5</b>devices served", ">500</b>rows", "2 s</b>until it was seen", "30 min</b>"):
        assert text in shown
    assert "serinus incident export 1" in shown
    assert browser.get("/incidents/99").status_code == 404
    assert browser.get(f"/incidents/{10**30}").status_code == 422


def test_labels_say_how_many_came_how_late_and_who_is_hurt(browser: httpx.Client) -> None:
    every = browser.get("/labels").text
    assert "90.9 %" in every, "5,000 of 5,500 rows are labelled"
    shown = browser.get("/labels/tiny-motion").text
    assert "3 labels within 16 s; 37.5 % have come until then" in shown
    assert "5 labels within 9.1 h; 100.0 % have come until then" in shown
    assert "0 labels within 17 min; 37.5 %" in shown
    assert "Right on <b>82.0 %</b> of 5,000 labelled rows" in shown
    assert 'side=left <span class="badge failed">hurt</span>' in shown
    assert "from 40 to 100 %" in shown
    other = browser.get("/labels/tiny-motion?release=tiny-motion@1.1.0").text
    assert "No row of it is labelled yet." in other
    assert browser.get("/labels/absent").status_code == 404


def test_decisions_are_shown_by_kind_and_the_chain_is_said_to_hold(browser: httpx.Client) -> None:
    shown = browser.get("/decisions").text
    assert "holds</b>the chain of hashes" in shown
    assert "rollout start" in shown
    assert "release</span> tiny-motion@1.1.0" in shown
    only = browser.get("/decisions?kind=incident").text
    assert "incident resolve" in only
    assert "rollout start" not in only
    assert "logged in" in browser.get("/decisions?kind=logged in").text


def test_empty_pages_say_what_would_be_there(read: TestClient) -> None:
    for path, text in (
        ("/alerts", "Nothing is wrong"),
        ("/alerts?kind=drift", "No alert of this kind"),
        ("/incidents", "None yet"),
        ("/labels", "No release is approved yet"),
        ("/certificates", "No device is enrolled"),
        ("/certificates?device=watch-01", "This device was never enrolled"),
        ("/decisions?kind=rollout", "Nothing was decided yet"),
    ):
        answer = read.get(path)
        assert answer.status_code == 200
        assert text in answer.text


def test_certificates_say_who_is_in_for_how_long_and_who_is_not(
    fleet: SpokenFleet, read: TestClient
) -> None:
    services = fleet.services
    for name in ("lost", "lapsed", "ending", "valid"):
        if name == "ending":
            fleet.clock.now += 26 * DAY
        elif name == "valid":
            fleet.clock.now += 25 * DAY
        secret = services.enrol_tokens.create(
            name, uses=1, reenrol=False, expires_ms=None, by=("olga", "operator")
        )
        services.enrolment.enrol(Applicant(name).enrolment(secret))
    services.certificates.revoke(
        serial=None, device="lost", reason="<b>stolen", by=("olga", "operator")
    )
    let_in(fleet, read, "viewer")
    shown = read.get("/certificates").text
    for number, what in (
        (1, "devices with a certificate that lasts"),
        (1, "with one that ends within a week"),
        (1, "whose certificate has expired"),
        (1, "revoked"),
    ):
        assert f"<b>{number}</b>{what}" in shown
    assert "by olga: &lt;b&gt;stolen" in shown
    assert "Enrolment tokens" not in shown, "a viewer need not know them"
    one = read.get("/certificates?device=ending").text
    assert "Certificates of ending" in one
    assert ">lapsed</a>" not in one
    let_in(fleet, read, "operator")
    told = read.get("/certificates").text
    assert ">spent</span>" in told
    assert "0 of 1" in told


def test_a_broken_chain_is_named(fleet: SpokenFleet, read: TestClient) -> None:
    decided(fleet, 3)
    assert "holds</b>" in read.get("/decisions").text
    tamper(fleet.services.database, "UPDATE audit SET actor = 'eve' WHERE entry = 4")
    fleet.clock.now += audit_log.KEPT_MS
    shown = read.get("/decisions").text
    assert "broken</b>entry 4 was changed" in shown
    assert "3</b>entries until there" in shown


def decided(fleet: SpokenFleet, times: int) -> None:
    with fleet.services.database.write() as connection:
        for number in range(times):
            audit.record(
                connection, at_ms=fleet.clock(), actor="ann", role="operator",
                action="rollout.start", subject=f"r{number}", detail={"release": "m@1.0.0"},
            )  # fmt: skip


def test_older_decisions_are_pages_back(fleet: SpokenFleet, read: TestClient) -> None:
    decided(fleet, 230)
    seen: list[str] = []
    path: str | None = "/decisions?kind=rollout"
    while path:
        shown = read.get(path).text
        seen += [part.partition('"')[0] for part in shown.split('href="/rollouts/')[1:]]
        more = shown.partition("/decisions?before=")[2].partition('"')[0]
        path = f"/decisions?before={more.replace('&amp;', '&')}" if more else None
    assert seen == [f"r{number}" for number in reversed(range(230))]


def test_whatever_an_alert_says_is_shown_as_text(fleet: SpokenFleet, read: TestClient) -> None:
    detail: dict[str, Any] = {
        "since_ms": 0,
        "far_ms": 2**53,
        "open": True,
        "empty": [],
        "nothing": None,
        "tiny": 1e-17,
        "named": ["a"] * 20,
        "rows": [{"channel": "<i>x</i>", "e": 1.5}, {"channel": "y"}],
        "nested": {"deep": {"deeper": [1, {"deepest": "x" * 5000}]}},
    }
    with fleet.services.database.write() as connection:
        for kind in ("drift", "a/b&c=d"):
            title = "<script>alert(1)</script>"
            journal.open_alert(connection, fleet.clock(), kind, "s", title, detail)
    shown = read.get("/alerts").text
    assert "<script" not in shown
    for text in ("1970-01-01 00:00:00 UTC", f"{2**53} ms", "and 12 more", "&lt;i&gt;x", ">0</dd>"):
        assert text in shown
    assert len(shown) < 20_000
    assert "alert(1)" in read.get("/alerts", params={"kind": "a/b&c=d"}).text
    assert 'href="/alerts?kind=a/b%26c%3Dd"' in shown


def test_bars_of_delays_keep_the_spans_in_between() -> None:
    plot = plots.delays({"<16": 3, "<128": 6, "<1": 1})
    assert [bar.labels for bar in plot.bars] == [1, 0, 0, 0, 3, 0, 0, 6]
    assert [bar.x for bar in plot.bars] == [plots.BAR * place for place in range(8)]
    assert plot.bars[-1].height == plots.HEIGHT
    assert plot.bars[4].height == plots.HEIGHT // 2
    assert [round(bar.share, 2) for bar in plot.bars[-4:]] == [0.4, 0.4, 0.4, 1.0]
    assert plots.delays({}).bars == []
    assert plots.delays({"<1": 1_000_000, "<2": 1}).bars[1].height == 1, "one label is seen, too"


def test_an_interval_lies_on_its_axis() -> None:
    assert plots.interval(0.5, 1.0, 0.75, 0.6, 0.5) == plots.Interval(0, 180, 90, 36)
    assert plots.interval(0.5, 1.0, 0.75, 0.2, 0.5) == plots.Interval(0, 180, 90, 0)
    assert plots.interval(None, None, None, 0.5, 0.0) is None
    assert [plots.start_of(low) for low in (None, 0.0, 0.05, 0.4, 0.47, 1.0)] == [
        0.0,
        0.0,
        0.0,
        0.3,
        0.4,
        0.9,
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0, "0 s"), (2, "2 s"), (90, "1.5 min"), (5400, "1.5 h"), (1e8, "1,157 d")],
)
def test_spans_are_short(seconds: float | None, said: str) -> None:
    assert wording.span(seconds) == said
