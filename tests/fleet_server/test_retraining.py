"""Requests, leases and automation, with a clock that a test moves."""

from typing import Any

import pytest

from edge_core.release import ReleaseRef
from fleet_server.domain.retraining import DAY_MS, Policy
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.retraining import LEASE_MS, Claimed, Result
from fleet_server.storage import audit, journal
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")

MODEL = "tiny-motion"


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, ["d1", "d2", "d3"])
    return found


def ask(fleet: SpokenFleet, automation: str = "build") -> int:
    asked = fleet.services.retraining.ask(
        MODEL, "because", automation=automation, by="ann", role="operator"
    )
    return asked.request


def claim(fleet: SpokenFleet, worker: str = "w1") -> Claimed:
    found = fleet.services.retraining.claim(worker, [MODEL])
    assert found is not None
    return found


def finish(fleet: SpokenFleet, claimed: Claimed, state: str = "refused", **more: Any) -> Any:
    result = Result(lease=claimed.lease, state=state, outcome="side=left is 0.3 worse", **more)
    return fleet.services.retraining.finish(claimed.request, result, by="ci", role="ci")


def test_a_worker_gets_what_it_can_build_with_the_incumbent(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    ask(fleet)
    assert fleet.services.retraining.claim("w1", ["another-model"]) is None
    claimed = claim(fleet)
    assert (claimed.incumbent, claimed.incumbent_digest) == (ref.name, ref.digest)
    assert fleet.services.retraining.claim("w2", [MODEL]) is None  # one at a time
    assert fleet.services.retraining.one(claimed.request).lease is None  # nobody else may know


def test_a_refusal_pages_with_slice_and_numbers(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    ask(fleet)
    gates = [{"gate": "below_parent_fixed", "slice": "side=left", "value": 0.3, "threshold": 0.02}]
    assert finish(fleet, claim(fleet), gates=gates).gates == gates
    (title,) = fleet.alerts("retraining")
    assert "side=left is 0.3 worse" in title
    with fleet.services.database.read() as connection:
        (event,) = [e for e in journal.latest_events(connection, 50) if "gates" in e.detail]
        assert event.detail["severity"] == "page"
        assert [e.action for e in audit.every(connection)] == ["retrain.ask", "retrain.refused"]


def test_a_silent_worker_loses_its_request_and_may_not_end_it_later(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    ask(fleet)
    first = claim(fleet, "w1")
    fleet.clock.now += LEASE_MS - 1
    fleet.services.retraining.renew(first.request, first.lease, "building")
    fleet.clock.now += LEASE_MS - 1
    assert fleet.services.retraining.claim("w2", [MODEL]) is None
    fleet.clock.now += 2
    second = claim(fleet, "w2")
    assert second.request == first.request
    with pytest.raises(Conflict, match="not yours any more"):
        finish(fleet, first, "published", release=ref.name, digest=ref.digest)
    with pytest.raises(Conflict):
        fleet.services.retraining.renew(first.request, first.lease, "building")
    assert finish(fleet, second, "unchanged").state == "unchanged"
    with pytest.raises(Conflict):
        finish(fleet, second, "unchanged")


def test_a_request_whose_workers_all_fall_silent_is_given_up_and_told(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    number = ask(fleet)
    for _ in range(3):
        claim(fleet)
        fleet.clock.now += LEASE_MS + 1
    fleet.services.retraining.watch()
    assert fleet.services.retraining.one(number).state == "failed"
    (title,) = fleet.alerts("retraining")
    assert "3 workers fell silent" in title
    ask(fleet)  # and may be asked for again


def test_one_request_at_a_time_and_none_for_what_is_not_known(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    ask(fleet)
    with pytest.raises(Conflict, match="has not ended"):
        ask(fleet)
    with pytest.raises(NotFound):
        fleet.services.retraining.ask("x", "", automation="build", by="ann", role="operator")
    with pytest.raises(InvalidRequest):
        ask(fleet, "at will")
    with pytest.raises(InvalidRequest, match="has a release"):
        finish(fleet, claim(fleet), "published")
    with pytest.raises(InvalidRequest):
        fleet.services.retraining.finish(
            1, Result(lease="x", state="maybe", outcome=""), by="ci", role="ci"
        )


def test_a_schedule_suggests_and_a_person_lets_it_go_on(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.services.retraining.set_policy(
        Policy(model=MODEL, every_days=7), by="ann", role="operator"
    )
    fleet.services.retraining.watch()
    assert fleet.services.retraining.every(10) == []
    fleet.clock.now += 8 * DAY_MS
    for _ in range(3):
        fleet.services.retraining.watch()
    (request,) = fleet.services.retraining.every(10)
    assert (request.state, request.cause, request.asked_by) == ("suggested", "schedule", "server")
    assert fleet.services.retraining.claim("w1", [MODEL]) is None
    fleet.services.retraining.approve(request.request, by="ann", role="operator")
    assert claim(fleet).request == request.request
    fleet.services.retraining.cancel(request.request, "no", by="ann", role="operator")
    with pytest.raises(Conflict):
        fleet.services.retraining.approve(request.request, by="ann", role="operator")
    fleet.services.retraining.drop_policy(MODEL, by="ann", role="operator")
    with pytest.raises(NotFound):
        fleet.services.retraining.drop_policy(MODEL, by="ann", role="operator")


def test_a_drift_asks_once(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    policy = Policy(model=MODEL, automation="build", cooldown_days=2)
    fleet.services.retraining.set_policy(policy, by="ann", role="operator")
    with fleet.services.database.write() as connection:
        detail = {"model": MODEL}
        journal.open_alert(connection, fleet.clock(), "drift", MODEL, "data drift in ax", detail)
    fleet.services.retraining.watch()
    fleet.services.retraining.watch()
    (request,) = fleet.services.retraining.every(10)
    assert (request.state, request.cause, request.reason) == ("open", "drift", "data drift in ax")
    finish(fleet, claim(fleet), "refused")
    fleet.clock.now += DAY_MS
    fleet.services.retraining.watch()
    assert len(fleet.services.retraining.every(10)) == 1  # it cools down
    fleet.clock.now += DAY_MS
    fleet.services.retraining.watch()
    assert len(fleet.services.retraining.every(10)) == 2


def test_what_is_published_is_rolled_out_where_the_request_says_so(
    fleet: SpokenFleet, ref: ReleaseRef, repository: Any
) -> None:
    number = ask(fleet, "rollout")
    claimed = claim(fleet)
    made = repository.publish("1.1.0", seed=1)
    finish(fleet, claimed, "published", release=made.name, digest=made.digest)
    fleet.services.retraining.watch()
    assert fleet.services.rollouts.every() == []  # the list has not been read yet
    fleet.approve(made)
    fleet.services.retraining.watch()
    fleet.services.retraining.watch()
    (rollout,) = fleet.services.rollouts.every()
    assert rollout.release == made.name
    assert rollout.created_by == f"retraining {number}"
    assert fleet.services.retraining.one(number).rollout == rollout.rollout


def test_a_rollout_that_is_in_the_way_is_waited_for(
    fleet: SpokenFleet, ref: ReleaseRef, repository: Any
) -> None:
    other = fleet.approve(repository.publish("1.0.1", seed=2))
    fleet.services.rollouts.start(other.name, None, "ann")
    number = ask(fleet, "rollout")
    made = fleet.approve(repository.publish("1.1.0", seed=1))
    finish(fleet, claim(fleet), "published", release=made.name, digest=made.digest)
    fleet.services.retraining.watch()
    fleet.services.retraining.watch()
    told = fleet.services.retraining.one(number)
    assert told.rollout is None
    assert "has not ended" in told.progress
