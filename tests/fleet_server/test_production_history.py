"""What was in production at any time, decided by whom, and what devices ran then."""

from typing import Any

import pytest

from edge_core.release import ReleaseRef
from tests.fleet_server.test_people_steer import NAMES, promote, start
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def old(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, NAMES)
    return ref


def test_the_past_is_told_as_it_was(fleet: SpokenFleet, old: ReleaseRef, repository: Any) -> None:
    before = fleet.clock()
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    fleet.clock.now += 1000
    rollout = start(fleet, new)
    fleet.clock.now += 1000
    fleet.obey()
    middle = fleet.clock() + 500
    fleet.clock.now += 1000
    promote(fleet, rollout)
    fleet.clock.now += 1000
    (first,) = fleet.services.overview.production_at(before)
    assert first.built_from is not None
    assert first.built_from["datasets"]
    assert (first.release, first.devices) == (old.name, {old.name: 20})
    (then,) = fleet.services.overview.production_at(middle)
    assert then.release == old.name
    assert then.devices == {old.name: 15, new.name: 5}
    (now,) = fleet.services.overview.production_at(fleet.clock())
    assert (now.release, now.until_ms, now.devices) == (new.name, None, {new.name: 20})
    assert now.decided_by["rollout"] == rollout
    assert now.decided_by["started_by"] == "ann"
    assert isinstance(now.decided_by["verdict"], int)
    newest, oldest = fleet.services.overview.production_history("tiny-motion")
    assert (newest.release, oldest.release) == (new.name, old.name)
    assert oldest.until_ms == newest.since_ms
    assert fleet.services.overview.production_history("another") == []


def test_before_anything_was_in_production_nothing_was(fleet: SpokenFleet, old: ReleaseRef) -> None:
    assert fleet.services.overview.production_at(-1) == []
