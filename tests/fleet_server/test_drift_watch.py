"""The watch over all releases: alerts that open, and that do not stay open for nobody."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edge_core.release import ReleaseRef
from fleet_server.services.drift import STALE_PERIODS
from fleet_server.services.labels import ToldAnswer, ToldLabel
from fleet_server.storage import drift
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, tiny_bundle

BACKENDS = ("sqlite", "postgresql")
NUMBERS = count()


@pytest.fixture
def both(fleet: SpokenFleet, repository: Any) -> tuple[ReleaseRef, ReleaseRef]:
    old = fleet.approve(repository.publish("1.0.0"))
    return old, fleet.approve(repository.publish("1.1.0", seed=1))


def drifted(fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]) -> None:
    """Let the candidate in shadow see other scores than it learned, the incumbent not."""
    old, new = both
    for number in range(20):
        shift = 0.9 if number >= 15 else 0.0
        fleet.period({(old.digest, "incumbent"): 0.0, (new.digest, "shadow"): shift})
    assert len(fleet.alerts("drift")) == 1


def seen_within(folder: Path, **changes: Any) -> Path:
    """A tiny bundle with an embedding."""
    return tiny_bundle(folder, coordinates=5, **changes)


def test_a_shift_of_the_embedding_alone_opens_an_alert_that_says_so(
    fleet: SpokenFleet, repository: Any
) -> None:
    ref = fleet.approve(repository.publish("1.0.0", build=seen_within))
    for _ in range(15):
        fleet.period({(ref.digest, "incumbent"): 0.0})
    assert not fleet.alerts("drift")
    for _ in range(3):
        fleet.period({(ref.digest, "incumbent"): 0.9}, kind="embedding")
    (title,) = fleet.alerts("drift")
    assert title.startswith("prediction drift in embedding[")
    assert "neither inputs nor scores" in title


def test_an_alert_ends_when_the_release_that_opened_it_runs_no_more(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]
) -> None:
    drifted(fleet, both)
    for _ in range(STALE_PERIODS - 1):
        fleet.period({(both[0].digest, "incumbent"): 0.0})
        assert fleet.alerts("drift")
    for _ in range(3):
        fleet.period({(both[0].digest, "incumbent"): 0.0})
    assert not fleet.alerts("drift")


def test_a_straggler_with_a_few_rows_does_not_hold_an_alert_open(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]
) -> None:
    drifted(fleet, both)
    for _ in range(STALE_PERIODS + 2):
        fleet.period({(both[1].digest, "shadow"): 0.9}, rows=20)
    assert not fleet.alerts("drift")


def test_a_release_that_comes_back_into_the_drift_opens_the_alert_again(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]
) -> None:
    drifted(fleet, both)
    for _ in range(STALE_PERIODS + 2):
        fleet.period({(both[0].digest, "incumbent"): 0.0})
    for _ in range(6):
        fleet.period({(both[1].digest, "shadow"): 0.9})
    assert len(fleet.alerts("drift")) == 1


def test_the_time_that_a_server_was_down_ends_no_alert(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef], tmp_path: Any
) -> None:
    drifted(fleet, both)
    fleet.clock.now += 3_600_000
    with SpokenFleet(fleet.config, fleet.clock) as restarted:
        restarted.services.drift.observe()
        assert restarted.alerts("drift")
        for _ in range(STALE_PERIODS + 2):
            restarted.period({(both[0].digest, "incumbent"): 0.0})
        assert not restarted.alerts("drift")


def tell(fleet: SpokenFleet, ref: ReleaseRef, labels: Sequence[str], side: str = "left") -> None:
    """Labels that somebody uploads, of answers that all were the first class."""
    told = [
        ToldLabel(
            prediction_id=f"p{next(NUMBERS)}",
            label=label,
            answer=ToldAnswer(
                device="d1", release=ref.digest, predicted=CLASSES[0], at_ms=fleet.clock(),
                slices={"side": side},
            ),
        )
        for label in labels
    ]  # fmt: skip
    fleet.services.labels.take(told, "labeller")


def test_labels_that_are_told_to_the_server_show_a_change_of_what_inputs_mean(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]
) -> None:
    old, _ = both
    for number in range(24):
        wrong = 20 + number % 3 if number < 18 else 170
        tell(fleet, old, [CLASSES[1]] * wrong + [CLASSES[0]] * (200 - wrong), "right")
        tell(fleet, old, [CLASSES[1]] * 20 + [CLASSES[0]] * 180)
        fleet.period({(old.digest, "incumbent"): 0.0})
        if number == 17:
            assert fleet.alerts("drift") == []
    (found,) = fleet.services.drift_responses.every()
    assert found.alert.detail["kind"] == "concept"
    assert found.alert.detail["features"] == ["wrong answers"]
    assert "side=right" in found.alert.detail["slices"]


def test_a_corrected_label_is_seen_once(
    fleet: SpokenFleet, both: tuple[ReleaseRef, ReleaseRef]
) -> None:
    tell(fleet, both[0], [CLASSES[0]])
    name = f"p{next(NUMBERS) - 1}"
    for label in (CLASSES[1], CLASSES[0], CLASSES[0]):
        fleet.services.labels.take([ToldLabel(prediction_id=name, label=label)], "labeller")
    with fleet.services.database.read() as connection:
        found = drift.periods_between(connection, -1, 2**40)
    assert [(counts.right, counts.wrong) for _, counts in found] == [(1, 0)]
