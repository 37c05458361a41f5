"""A device's page shows what the device says of itself, however odd that is."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from edge_core.messages import codec, topics
from edge_core.messages.telemetry import (
    CommandOutcome,
    FallbackMode,
    Placement,
    Probation,
    ReportedState,
)
from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from fleet_server.console.rendering import SESSION_COOKIE
from fleet_server.services.ingest import Inbound
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

Page = Callable[..., str]
LATEST_MS = 2**53


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


@pytest.fixture
def page(fleet: SpokenFleet, ref: ReleaseRef) -> Page:
    """Let a device report this, and read its page."""
    tokens = fleet.services.tokens
    session = tokens.log_in(tokens.create("anna", "viewer"))
    browser = TestClient(create_app(fleet.config, fleet.services))
    browser.cookies.set(SESSION_COOKIE, session)

    def read(**changes: Any) -> str:
        plain = ReportedState(
            device="d1", at_ms=fleet.clock(), target=TARGET, runtime="none", active=ref
        )
        payload = codec.encode(msgspec.structs.replace(plain, **changes))
        topic = topics.up("d1", "state")
        fleet.services.ingest.take([Inbound(topic=topic, payload=payload)])
        answer = browser.get("/devices/d1")
        assert answer.status_code == 200
        return answer.text

    return read


def test_who_answers_where_and_what_is_wrong(
    page: Page, fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    shown = page(
        update="probation",
        previous=msgspec.structs.replace(ref, version="0.9.0"),
        probation=Probation(passed=True, rows=41, errors=1, restarts=2, verdict="41 rows, 1 error"),
        fallbacks=[FallbackMode(model=ref.model, cause="command", reason="storm", since_ms=0)],
        placement=Placement(operators={"CPU": 3}, wanted=["NPU"], absent=["NPU"], fell_back=3),
        shadow_dropped=7,
        troubles=["the outbox began anew: <script>"],
    )
    for text in (
        "storm",
        "since 1970-01-01 00:00:00",
        "3 do not run on NPU",
        "absent: NPU",
        "7 rows were not compared",
        "41 rows, 1 error",
        "waits for the server",
        "tiny-motion@0.9.0",
        "the outbox began anew: &lt;script&gt;",
    ):
        assert text in shown


@pytest.mark.parametrize("moment", [LATEST_MS, -LATEST_MS])
def test_a_clock_beyond_all_calendars_breaks_no_page(page: Page, moment: int) -> None:
    mode = FallbackMode(model="m", cause="breaker", since_ms=moment, until_ms=moment)
    shown = page(at_ms=moment, fallbacks=[mode])
    assert f"{moment} ms" in shown


def test_moments_are_bounded_like_all_others(fleet: SpokenFleet) -> None:
    beyond = LATEST_MS + 1
    for odd in (
        {"fallbacks": [FallbackMode(model="m", cause="breaker", since_ms=beyond)]},
        {"fallbacks": [FallbackMode(model="m", cause="breaker", since_ms=0, until_ms=beyond)]},
        {"commands": [CommandOutcome(id="c", outcome="done", at_ms=beyond)]},
    ):
        state = ReportedState(device="d1", at_ms=0, target=TARGET, runtime="", **odd)  # type: ignore[arg-type]  # fields by name
        payload = msgspec.msgpack.encode(state)
        fleet.services.ingest.take([Inbound(topic=topics.up("d1", "state"), payload=payload)])
    assert fleet.services.overview.fleet().rejected == 3
