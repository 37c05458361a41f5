"""What opens an incident, what its timeline collects by itself, and how people end it."""

from typing import Any

import pytest

from edge_core.release import ReleaseRef
from fleet_server.services.errors import Conflict, NotFound
from fleet_server.services.incidents import IncidentView
from fleet_server.storage import audit, journal
from tests.fleet_server.test_people_steer import NAMES, running, start
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def old(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, NAMES)
    return ref


@pytest.fixture
def new(fleet: SpokenFleet, repository: Any, old: ReleaseRef) -> ReleaseRef:
    return fleet.approve(repository.publish("1.1.0", seed=1))


def rolled_back(fleet: SpokenFleet, new: ReleaseRef) -> str:
    rollout = start(fleet, new, max_lost_share=0.3)
    fleet.obey()
    fleet.pass_nothing()
    for name in sorted(running(fleet, new))[:3]:
        fleet.refuse(name, new)
    fleet.decide(10)
    assert fleet.services.rollouts.one(rollout).state == "rolling_back"
    return rollout


def collected(fleet: SpokenFleet, seconds: float = 1.0) -> IncidentView:
    fleet.clock.now += round(seconds * 1000)
    fleet.services.incidents.collect()
    (newest, *_) = fleet.services.incidents.every(10)
    return fleet.services.incidents.one(newest.incident)


def test_a_rollback_opens_one_with_what_led_to_it(
    fleet: SpokenFleet, old: ReleaseRef, new: ReleaseRef
) -> None:
    rollout = rolled_back(fleet, new)
    view = collected(fleet)
    assert (view.incident.kind, view.incident.subject) == ("rollback", rollout)
    told = [entry.text for entry in view.timeline]
    assert any("started by ann" in text for text in told)
    assert any("stage canary" in text for text in told)
    assert any("refuses" in text for text in told)
    assert [e.at_ms for e in view.timeline] == sorted(e.at_ms for e in view.timeline)
    assert view.impact.devices == 5
    assert view.impact.rows == 5 * 100
    again = collected(fleet)
    assert len(fleet.services.incidents.every(10)) == 1
    assert len(again.timeline) == len(view.timeline)


def test_it_is_mitigated_when_the_fleet_is_back_and_resolved_by_a_person(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rolled_back(fleet, new)
    opened = collected(fleet).incident.incident
    fleet.obey()
    fleet.decide(30)
    view = collected(fleet)
    assert view.incident.state == "mitigated"
    assert view.impact.seconds_to_mitigate is not None
    assert view.impact.seconds_to_mitigate >= 30
    fleet.services.incidents.assign(opened, "bob", by="ann", role="operator")
    fleet.services.incidents.note(opened, "the self-test was too strict", by="bob", role="operator")
    ended = fleet.services.incidents.resolve(opened, "a bad threshold", by="bob", role="operator")
    assert (ended.incident.state, ended.incident.owner) == ("resolved", "bob")
    with pytest.raises(Conflict, match="by bob already"):
        fleet.services.incidents.resolve(opened, "again", by="ann", role="operator")
    with pytest.raises(NotFound):
        fleet.services.incidents.one(99)
    with fleet.services.database.read() as connection:
        told = [entry.action for entry in audit.every(connection)]
    assert told[-3:] == ["incident.assign", "incident.note", "incident.resolve"]


def alert(fleet: SpokenFleet, subject: str = "tiny-motion", kind: str = "drift") -> None:
    with fleet.services.database.write() as connection:
        detail = {"model": "tiny-motion", "since_ms": fleet.clock() - 60_000}
        title = f"data drift in {subject}"
        journal.open_alert(connection, fleet.clock(), kind, subject, title, detail)


def close(fleet: SpokenFleet) -> None:
    with fleet.services.database.write() as connection:
        journal.close_alert(connection, fleet.clock(), "drift", "tiny-motion")


def test_an_alert_that_comes_back_goes_on_in_the_same_incident(
    fleet: SpokenFleet, old: ReleaseRef
) -> None:
    alert(fleet)
    first = collected(fleet)
    assert first.impact.seconds_to_detect == 61
    close(fleet)
    assert collected(fleet).incident.state == "mitigated"
    fleet.clock.now += 1000
    alert(fleet)
    again = collected(fleet)
    assert (again.incident.incident, again.incident.state) == (first.incident.incident, "open")
    assert any(entry.text.startswith("again:") for entry in again.timeline)


def test_one_that_was_resolved_while_its_alert_is_open_stays_resolved(
    fleet: SpokenFleet, old: ReleaseRef
) -> None:
    alert(fleet)
    number = collected(fleet).incident.incident
    fleet.services.incidents.resolve(number, "a new season", by="ann", role="operator")
    assert collected(fleet).incident.state == "resolved"
    assert len(fleet.services.incidents.every(10)) == 1
    close(fleet)
    fleet.clock.now += 1000
    alert(fleet)
    assert collected(fleet).incident.incident == number + 1


def test_other_kinds_and_other_models_stay_out_of_it(fleet: SpokenFleet, old: ReleaseRef) -> None:
    alert(fleet, kind="clock")
    fleet.services.incidents.collect()
    assert fleet.services.incidents.every(10) == []
    alert(fleet)
    collected(fleet)
    with fleet.services.database.write() as connection:
        journal.add_event(connection, fleet.clock(), "rollout", "other@1.0.0", "of another model")
        journal.add_event(connection, fleet.clock(), "rollout", old.name, "of this model")
    told = [entry.text for entry in collected(fleet).timeline]
    assert "of this model" in told
    assert "of another model" not in told


def test_a_post_mortem_is_the_same_for_the_same_data_and_harmless(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = rolled_back(fleet, new)
    number = collected(fleet).incident.incident
    fleet.services.incidents.note(number, "a | pipe\nand <b>markup</b>", by="bob", role="operator")
    text = fleet.services.incidents.postmortem(number)
    assert text == fleet.services.incidents.postmortem(number)
    assert f"# Incident {number}: tiny-motion@1.1.0 is rolled back" in text
    assert "The candidate answered 500 rows on 5 devices; 0 failed." in text
    assert "| bob | " in text
    assert "a \\| pipe and &lt;b>markup&lt;/b>" in text
    assert "## Why did it reach devices" in text
    verdict = fleet.services.rollouts.one(rollout).decided_by
    assert f"serinus verdict replay {verdict}" in text
