"""From windows of slices to an alert, and what is done about it, by people and by policies."""

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_core.messages.telemetry import StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import audit, commands, drift, journal
from fleet_server.storage.drift import PeriodCounts, PeriodKey
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")
MODEL = "tiny-motion"
DEVICES = ["d1", "d2", "d3"]


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, DEVICES)
    return found


def drifted(fleet: SpokenFleet, ref: ReleaseRef, *, nulls: bool = False) -> None:
    """Twenty usual periods, then others until an alert opens."""
    for number in range(40):
        moved = number >= 20
        period(fleet, ref, shift=0.6 if moved else 0.0, nulls=nulls)
        if moved and fleet.alerts("drift"):
            return
    raise AssertionError("no drift was seen")


def period(fleet: SpokenFleet, ref: ReleaseRef, *, shift: float, nulls: bool) -> None:
    """One period of 3,000 rows; a share of each input is somewhere else, or missing."""
    number = fleet.clock() // round(fleet.config.windows.drift_period_seconds * 1000)
    with fleet.services.database.write() as connection:
        release = fleet.services.catalog.require(connection, ref.digest)
        counts = []
        for channel in release.reference.channels:
            shares = np.ones(channel.size) / (channel.size - 1)
            shares[-1] = 0
            if channel.kind == "input":
                shares *= 1 - shift
                shares[-1 if nulls else -3] += shift
            counts.append(np.round(3000 * shares).astype(np.int64))
        merged = PeriodCounts(rows=3000, counts=np.concatenate(counts))
        drift.add_to_periods(connection, {PeriodKey(ref.digest, "incumbent", number, ""): merged})
    fleet.clock.now += round(fleet.config.windows.drift_period_seconds * 1000)
    fleet.services.drift.observe()


def respond(fleet: SpokenFleet, action: str | None = None, **more: Any) -> Any:
    return fleet.services.drift_responses.respond(
        MODEL, action, more.pop("reason", "seen"), by="ann", role="operator", **more
    )


def ordered(fleet: SpokenFleet) -> list[tuple[str, str]]:
    with fleet.services.database.read() as connection:
        return [
            (row.device, row.kind)
            for name in DEVICES
            for row in reversed(commands.latest(connection, name, 10))
        ]


def test_what_is_suggested_is_one_call_and_asks_for_training(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    drifted(fleet, ref)
    (open_,) = fleet.services.drift_responses.every()
    assert (open_.alert.detail["kind"], open_.suggested) == ("data", "retrain")
    done = respond(fleet)
    (response,) = done.responses
    request = fleet.services.retraining.one(response.detail["request"])
    assert (request.model, request.alert, request.state) == (MODEL, open_.alert.alert, "open")
    with fleet.services.database.read() as connection:
        actions = [entry.action for entry in audit.every(connection)]
    assert actions == ["retrain.ask", "drift.retrain"]
    with pytest.raises(Conflict):
        respond(fleet, "retrain")


def test_missing_values_are_the_sources_fault_and_no_policy_trains_on_them(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    drifted(fleet, ref, nulls=True)
    (open_,) = fleet.services.drift_responses.every()
    assert (open_.alert.detail["kind"], open_.suggested) == ("upstream", "fix-source")
    assert "missing" in open_.alert.title
    assert respond(fleet).responses[0].action == "fix-source"


def test_devices_fall_back_in_one_call_and_come_back_when_the_drift_ends(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    drifted(fleet, ref)
    assert respond(fleet, "fallback").responses[0].detail == {"devices": 3}
    assert ordered(fleet) == [(name, "fallback_on") for name in DEVICES]
    for _ in range(10):
        period(fleet, ref, shift=0.0, nulls=False)
    assert not fleet.alerts("drift")
    both = ("fallback_on", "fallback_off")
    assert ordered(fleet) == [(name, kind) for name in DEVICES for kind in both]


def test_a_policy_lets_devices_fall_back_without_a_person(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.services.drift_responses.set_policy(MODEL, ["upstream"], by="ann", role="operator")
    drifted(fleet, ref, nulls=True)
    (open_,) = fleet.services.drift_responses.every()
    assert [(row.action, row.by) for row in open_.responses] == [("fallback", "policy")]
    assert ordered(fleet) == [(name, "fallback_on") for name in DEVICES]
    fleet.services.drift_responses.drop_policy(MODEL, by="ann", role="operator")
    assert not fleet.services.drift_responses.policies()


def test_what_is_usual_from_now_on_is_learned_anew(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    drifted(fleet, ref)
    respond(fleet, "usual", reason="a new watch strap")
    assert not fleet.alerts("drift")
    for _ in range(20):
        period(fleet, ref, shift=0.6, nulls=False)
    assert not fleet.alerts("drift")
    for _ in range(10):
        period(fleet, ref, shift=0.0, nulls=False)
    assert fleet.alerts("drift")


def test_nothing_is_done_about_nothing(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    with pytest.raises(NotFound, match="does not drift now"):
        respond(fleet)
    drifted(fleet, ref)
    for bad in ({"action": "panic"}, {"action": "fallback", "for_seconds": float("nan")}):
        with pytest.raises(InvalidRequest):
            respond(fleet, **bad)
    with pytest.raises(InvalidRequest):
        respond(fleet, "rethink", reason="two\nlines")
    with pytest.raises(InvalidRequest, match="unknown kind"):
        fleet.services.drift_responses.set_policy(MODEL, ["weather"], by="ann", role="operator")
    with pytest.raises(NotFound):
        fleet.services.drift_responses.drop_policy(MODEL, by="ann", role="operator")
    assert not fleet.services.drift_responses.every()[0].responses


def test_windows_of_slices_are_merged_by_slice_with_what_labels_said(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    with fleet.services.database.read() as connection:
        release = fleet.services.catalog.require(connection, ref.digest)
    counts = np.ones(release.layout.total, "<i8").tobytes()
    bins = release.window_schema.confidence_size
    (name, values), *_ = release.window_schema.slices
    window = StatsWindow(
        device="d1",
        epoch="e",
        sequence=0,
        opened_ms=fleet.clock() - 1000,
        closed_ms=fleet.clock(),
        release=ref,
        target=TARGET,
        arm="incumbent",
        rows=bins,
        counts=counts,
        right=np.eye(1, bins, 1, dtype="<i8").tobytes(),
        wrong=np.eye(1, bins, 2, dtype="<i8").tobytes(),
    )
    for number in range(4):
        slices = {name: values[number % 2]}
        fleet.window(msgspec.structs.replace(window, sequence=number, slices=slices))
    with fleet.services.database.read() as connection:
        found = drift.periods_between(connection, -1, 2**60)
        assert not journal.open_alerts(connection, "clock")
    assert sorted(key.slice for key, _ in found) == sorted(f"{name}={v}" for v in values[:2])
    for _, merged in found:
        assert (merged.rows, merged.right, merged.wrong) == (2 * bins, 2, 2)
        assert merged.counts.tolist() == [2] * release.layout.total
