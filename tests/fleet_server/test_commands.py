"""Commands as the server keeps them: sent until answered, in order, told in the log."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from edge_core.messages import codec, topics
from edge_core.messages.command import Command, FallbackOff, FallbackOn
from edge_core.messages.telemetry import CommandOutcome, ReportedState
from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from fleet_server.services.commands import RESEND_MS, VALID_MS
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.ingest import Inbound
from fleet_server.storage.commands import StoredCommand
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")

DAY_MS = 86_400_000


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    """A release that both devices run."""
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, ["d1", "d2"])
    return found


def order(fleet: SpokenFleet, *names: str, kind: str = "fallback_on", **changes: Any) -> Any:
    settings = {"model": None, "reason": "", "for_seconds": None, "by": "anna"}
    return fleet.services.commands.order(names, kind, **(settings | changes))


def due(fleet: SpokenFleet) -> list[Command]:
    return [codec.decode(Command, m.payload) for m in fleet.services.commands.to_send()]


def send(fleet: SpokenFleet) -> list[str]:
    messages = fleet.services.commands.to_send()
    fleet.services.commands.sent(messages)
    return [message.command for message in messages]


def answer(fleet: SpokenFleet, device: str, *outcomes: CommandOutcome) -> None:
    state = ReportedState(
        device=device, at_ms=fleet.clock(), target=TARGET, runtime="", commands=list(outcomes)
    )
    payload = codec.encode(state)
    fleet.services.ingest.take([Inbound(topic=topics.up(device, "state"), payload=payload)])


def outcome(number: str, what: Any = "done", detail: str = "") -> CommandOutcome:
    return CommandOutcome(id=number, outcome=what, detail=detail, at_ms=1)


def kept(fleet: SpokenFleet, device: str = "d1") -> list[StoredCommand]:
    return fleet.services.commands.of_device(device, 100)


def said(fleet: SpokenFleet) -> list[str]:
    events = fleet.services.overview.events(0, 100)
    return [f"{e.subject}: {e.text}" for e in events if e.kind == "command"]


def test_a_command_says_what_was_ordered(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    now = fleet.clock()
    one, two = order(fleet, "d1", "d2", reason="storm", for_seconds=60)
    assert (one.device, two.device) == ("d1", "d2")
    [first] = [command for command in due(fleet) if command.id == one.command]
    assert first == Command(
        id=one.command,
        issued_ms=now,
        expires_ms=now + 60_000,
        action=FallbackOn(model=ref.model, reason="storm", until_ms=now + 60_000),
    )
    assert fleet.services.rollouts.changed.is_set(), "it is sent at once"
    fleet.clock.now += 1
    order(fleet, "d1", kind="fallback_off")
    assert due(fleet)[-1].action == FallbackOff(model=ref.model)
    assert len(said(fleet)) == 3
    assert said(fleet)[0].startswith(f"d1: anna orders to let the baseline answer for {ref.model}")
    assert said(fleet)[0].endswith(": storm")


def test_a_command_is_sent_until_its_device_answers(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    [row] = order(fleet, "d1")
    assert send(fleet) == [row.command]
    assert send(fleet) == []
    fleet.clock.now += RESEND_MS + 1
    answer(fleet, "d1")
    assert send(fleet) == [row.command]
    fleet.clock.now += 1
    answer(fleet, "d1", outcome(row.command, "refused", "no room"))
    fleet.clock.now += RESEND_MS + 1
    assert send(fleet) == []
    [found] = kept(fleet)
    assert (found.outcome, found.detail) == ("refused", "no room")
    assert found.outcome_ms == 1_700_000_000_000 + RESEND_MS + 2
    assert said(fleet)[-1] == f"d1: command {row.command} refused: no room"


def test_commands_do_not_pile_up_at_the_broker_for_a_device_that_is_away(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    [row] = order(fleet, "d1")
    assert send(fleet) == [row.command]
    for _ in range(5):
        fleet.clock.now += RESEND_MS + 1
        assert send(fleet) == []
    answer(fleet, "d1")
    assert send(fleet) == [row.command], "it is back and still has not said what it did"


def test_an_outcome_is_told_once(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    [row] = order(fleet, "d1")
    for _ in range(3):
        answer(fleet, "d1", outcome(row.command), outcome("never ordered"))
    assert len(said(fleet)) == 2


def test_no_device_answers_for_another(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    [row] = order(fleet, "d1")
    answer(fleet, "d2", outcome(row.command))
    assert kept(fleet)[0].outcome is None


def test_what_nobody_answered_in_time_is_not_sent_any_more(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    order(fleet, "d1")
    fleet.clock.now += VALID_MS
    assert send(fleet) == []


def test_the_newest_order_counts_though_the_clock_goes_back(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    [first] = order(fleet, "d1")
    fleet.clock.now -= 3 * DAY_MS
    [second] = order(fleet, "d1", kind="fallback_off")
    [third] = order(fleet, "d1", for_seconds=1)
    assert first.issued_ms < second.issued_ms < third.issued_ms
    assert len(due(fleet)) == 3, "each can be packed"
    assert [row.command for row in kept(fleet)] == [third.command, second.command, first.command]


def test_a_device_that_runs_nothing_needs_the_model_s_name(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.report("d3")
    with pytest.raises(Conflict, match="d3 runs no approved release now: name the model"):
        order(fleet, "d1", "d3")
    assert kept(fleet) == []
    [row] = order(fleet, "d3", model="tiny-motion")
    assert row.model == "tiny-motion"


@pytest.mark.parametrize(
    ("names", "changes", "error"),
    [
        (["d1", "nobody"], {}, NotFound),
        ([], {}, InvalidRequest),
        (["d1"] * 1001, {}, InvalidRequest),
        (["d1"], {"kind": "explode"}, InvalidRequest),
        (["d1"], {"for_seconds": float("nan")}, InvalidRequest),
        (["d1"], {"for_seconds": -5}, InvalidRequest),
        (["d1"], {"for_seconds": 1e300}, InvalidRequest),
        (["d1"], {"reason": "x" * 501}, InvalidRequest),
        (["d1"], {"reason": "\x1b[2J"}, InvalidRequest),
        (["d1"], {"model": ""}, InvalidRequest),
        (["d1"], {"model": "a/b"}, InvalidRequest),
    ],
)
def test_a_refused_order_leaves_nothing(
    fleet: SpokenFleet,
    ref: ReleaseRef,
    names: list[str],
    changes: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        order(fleet, *names, **changes)
    assert kept(fleet) == []
    assert said(fleet) == []


def test_a_device_named_twice_is_ordered_once(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    assert len(order(fleet, "d1", "d1")) == 1


def test_old_commands_are_forgotten(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    order(fleet, "d1")
    fleet.clock.now += 400 * DAY_MS
    fleet.services.retention.prune()
    assert kept(fleet) == []


@pytest.mark.parametrize("name", ["\\ud800", "x" * 65])
def test_a_name_that_is_none_is_refused_by_the_api(
    fleet: SpokenFleet, ref: ReleaseRef, name: str
) -> None:
    token = fleet.services.tokens.create("anna", "operator")
    caller = TestClient(create_app(fleet.config, fleet.services), raise_server_exceptions=False)
    answer = caller.post(
        "/api/v1/commands",
        content=f'{{"kind": "fallback_on", "devices": ["d1", "{name}"]}}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert kept(fleet) == []
