"""A server that was away holds against no release what it could not hear."""

from typing import Any

import pytest

from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Refusal, ReportedState
from edge_core.release import ReleaseRef
from fleet_server.domain.plan import DEFAULT_PLAN
from fleet_server.services.ingest import Inbound
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

DEVICES = [f"d{number}" for number in range(6)]
AWAY_SECONDS = DEFAULT_PLAN.device_timeout_seconds + 600
UNCONFIRMED = "passed here, but the server did not confirm it within 900 s"


@pytest.fixture
def old(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, DEVICES)
    return ref


@pytest.fixture
def rollout(fleet: SpokenFleet, repository: Any, old: ReleaseRef) -> str:
    """Every device serves the candidate; none is left to compare their silence with."""
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    plan = {"stages": [{"kind": "canary", "share": 1.0}], "attempts": 1}
    started = fleet.services.rollouts.start(new.name, plan, "me")
    fleet.clock.now += 1000
    fleet.obey()
    return started.rollout


def state(fleet: SpokenFleet, rollout: str) -> str:
    return fleet.services.rollouts.one(rollout).state


def give_up(fleet: SpokenFleet, old: ReleaseRef, *refusals: Refusal) -> None:
    """Every device went back to what it had."""
    for name, wish in fleet.wishes().items():
        report = ReportedState(
            device=name,
            at_ms=fleet.clock(),
            target=TARGET,
            runtime="none",
            desired_revision=wish.revision,
            active=old,
            update="failed",
            reason=UNCONFIRMED,
            refusals=list(refusals),
        )
        topic = topics.up(name, "state")
        fleet.services.ingest.take([Inbound(topic=topic, payload=codec.encode(report))])


def revisions(fleet: SpokenFleet) -> set[int]:
    return {wish.revision for wish in fleet.wishes().values()}


def test_nobody_is_silent_before_the_server_has_listened_long_enough(
    fleet: SpokenFleet, rollout: str
) -> None:
    fleet.clock.now += round(AWAY_SECONDS * 1000)
    fleet.services.listening.began()
    fleet.decide()
    assert state(fleet, rollout) == "running"
    fleet.decide(AWAY_SECONDS)
    assert state(fleet, rollout) == "rolling_back", "now they are silent"


def test_nobody_is_silent_while_the_broker_is_away(fleet: SpokenFleet, rollout: str) -> None:
    fleet.services.listening.ended()
    fleet.decide(AWAY_SECONDS)
    assert state(fleet, rollout) == "running"
    fleet.services.listening.began()
    fleet.decide()
    assert state(fleet, rollout) == "running"


def test_who_went_back_without_the_servers_word_is_asked_once_more(
    fleet: SpokenFleet, rollout: str, old: ReleaseRef
) -> None:
    fleet.clock.now += round(AWAY_SECONDS * 1000)
    fleet.services.listening.began()
    before = revisions(fleet)
    give_up(fleet, old)
    fleet.decide()
    assert state(fleet, rollout) == "running"
    assert revisions(fleet) == {revision + 1 for revision in before}
    assert len(fleet.services.desired.to_send()) == len(DEVICES)
    fleet.decide()
    assert revisions(fleet) == {revision + 1 for revision in before}
    fleet.clock.now += 1000
    give_up(fleet, old)
    fleet.decide()
    assert state(fleet, rollout) == "rolling_back", "the server was there this time"


def test_a_release_that_devices_refuse_is_not_asked_for_again(
    fleet: SpokenFleet, rollout: str, old: ReleaseRef
) -> None:
    new = next(ref for ref in fleet.refs.values() if ref != old)
    fleet.clock.now += 1000
    fleet.services.listening.began()
    give_up(fleet, old, Refusal(release=new, reason="wrong golden outputs", at_ms=fleet.clock()))
    fleet.decide()
    assert state(fleet, rollout) == "rolling_back"
