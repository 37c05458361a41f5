"""Windows through the real ingest: a hurt slice raises an alert, a healed one ends it."""

from typing import Any

import numpy as np
import pytest

from edge_core.messages.telemetry import StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.services.fairness import EVERY_MS
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, ["d1"])
    return found


def labelled(
    fleet: SpokenFleet,
    ref: ReleaseRef,
    device: str,
    side: str,
    right: int,
    wrong: int,
    number: int = 1,
) -> None:
    with fleet.services.database.read() as connection:
        bins = fleet.services.catalog.require(connection, ref.digest).layout.confidence_size

    def counts(rows: int) -> bytes:
        packed = np.zeros(bins, "<i8")
        packed[1] = rows
        return packed.tobytes()

    fleet.window(
        StatsWindow(
            device=device, epoch="ab", sequence=number, opened_ms=fleet.clock() - 2000,
            closed_ms=fleet.clock(), release=ref, target=TARGET, arm="incumbent",
            slices={"side": side}, rows=right + wrong, right=counts(right), wrong=counts(wrong),
        )
    )  # fmt: skip


def watch(fleet: SpokenFleet) -> list[str]:
    fleet.clock.now += EVERY_MS
    fleet.services.fairness.watch()
    return fleet.alerts("fairness")


def test_a_slice_that_fares_worse_is_told_and_forgotten_when_it_does_not(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    for number in range(40):
        labelled(fleet, ref, f"r{number}", "right", 90, 10)
    assert watch(fleet) == []
    for number in range(10):
        labelled(fleet, ref, f"l{number}", "left", 50, 50)
    (title,) = watch(fleet)
    assert "50.0% of 1000 labelled rows of side=left" in title
    assert "90.0% of the others" in title
    report = fleet.services.fairness.report(ref.name)
    assert report.accuracy is not None
    assert report.accuracy > 0.8  # what the average says
    assert watch(fleet) == [title]  # once, not again at every look
    for number in range(10):
        labelled(fleet, ref, f"l{number}", "left", 950, 50, number=2)
    assert watch(fleet) == []


def test_few_rows_raise_no_alert(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    labelled(fleet, ref, "r1", "right", 900, 100)
    labelled(fleet, ref, "l1", "left", 0, 40)
    assert watch(fleet) == []
    (left, _) = fleet.services.fairness.report(ref.name).slices
    assert left.figure.accuracy == 0
    assert not left.figure.enough


def test_one_device_cannot_hurt_a_slice_alone(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    """A broken or lying device, however much it sends, weighs no more than a few observations."""
    for number in range(40):
        labelled(fleet, ref, f"r{number}", "right", 90, 10)
        labelled(fleet, ref, f"l{number}", "left", 90, 10)
    labelled(fleet, ref, "liar", "left", 0, 100_000)
    assert watch(fleet) == []
