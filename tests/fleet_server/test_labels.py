"""Labels told to the server: late, partial, corrected, twice, too early, and untrue."""

from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Sample
from edge_core.release import ReleaseRef
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.services.ingest import Inbound
from fleet_server.services.labels import MOST_AT_ONCE, ToldAnswer, ToldLabel
from fleet_server.storage import labels, predictions
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, TARGET

BACKENDS = ("sqlite", "postgresql")

MINUTE = 60_000
NUMBERS = count()


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


def sample(
    ref: ReleaseRef, fleet: SpokenFleet, name: str, predicted: str = "still", **changes: Any
) -> Sample:
    scores = np.full(len(CLASSES), 0.1, "<f4")
    scores[CLASSES.index(predicted)] = 0.8
    plain = Sample(
        device="d1", prediction_id=name, at_ms=fleet.clock(), release=ref, target=TARGET,
        arm="incumbent", slices={"side": "left"}, definition=None,
        window=np.zeros(DEFINITION.window.samples * 2, "<f4").tobytes(),
        features=np.zeros(len(DEFINITION.features), "<f4").tobytes(), scores=scores.tobytes(),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def send(fleet: SpokenFleet, *samples: Sample) -> None:
    fleet.services.ingest.take(
        [Inbound(topic=topics.up(s.device, "samples"), payload=codec.encode(s)) for s in samples]
    )


def told(name: str, label: str | None, **more: Any) -> ToldLabel:
    return ToldLabel(prediction_id=name, label=label, **more)


def sums(fleet: SpokenFleet, ref: ReleaseRef, slice_: str = "") -> dict[tuple[str, str], int]:
    """(label, answer) -> rows of one slice."""
    found: Counter[tuple[str, str]] = Counter()
    with fleet.services.database.read() as connection:
        for key, rows in labels.outcomes_of(connection, [ref.digest], 0).items():
            if key.slice == slice_:
                found[key.label, key.predicted] += rows
    return dict(found)


def test_a_late_label_finds_its_prediction_and_its_slices(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    send(fleet, sample(ref, fleet, "p-1"), sample(ref, fleet, "p-2", "tilt"))
    fleet.clock.now += 10 * MINUTE
    taken = fleet.services.labels.take([told("p-1", "shake"), told("p-2", "tilt")], "clinic")
    assert (taken.joined, taken.waiting, taken.refused) == (2, 0, [])
    expected = {("shake", "still"): 1, ("tilt", "tilt"): 1}
    assert sums(fleet, ref) == sums(fleet, ref, "side=left") == expected
    assert sums(fleet, ref, "side=right") == {}
    status = fleet.services.label_status.of_model("tiny-motion")
    assert status.told == {"joined": 2}
    assert status.delays.bins == {"<1024": 2}
    assert status.delays.median_seconds == 1024


def test_a_label_that_comes_before_its_prediction_waits_for_it(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    assert fleet.services.labels.take([told("p-1", "tilt")], "clinic").waiting == 1
    assert sums(fleet, ref) == {}
    send(fleet, sample(ref, fleet, "p-1"))
    assert sums(fleet, ref) == {("tilt", "still"): 1}
    send(fleet, sample(ref, fleet, "p-1"))  # sent again, as brokers do
    assert sums(fleet, ref) == {("tilt", "still"): 1}
    assert fleet.services.labels.take([told("p-1", "tilt")], "clinic").unchanged == 1
    assert fleet.services.label_status.of_model("tiny-motion").waiting == 0


def test_what_waits_for_a_class_that_its_release_does_not_have_is_never_counted(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.services.labels.take([told("p-1", "no such class")], "clinic")
    send(fleet, sample(ref, fleet, "p-1"))
    assert sums(fleet, ref) == {}
    assert fleet.services.labels.take([told("p-1", "still")], "clinic").joined == 1


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, *CLASSES])), min_size=1, max_size=20
    ),
    known=st.lists(st.integers(0, 20), min_size=3, max_size=3),
)
def test_corrections_and_late_predictions_in_any_order_leave_the_last_label(
    fleet: SpokenFleet,
    ref: ReleaseRef,
    steps: list[tuple[int, str | None]],
    known: list[int],
) -> None:
    number = next(NUMBERS)
    names = [f"{number}-{i}" for i in range(3)]
    before = Counter(sums(fleet, ref))
    for place, (which, label) in enumerate(steps):
        for i, when in enumerate(known):
            if when == place:
                send(fleet, sample(ref, fleet, names[i]))
        fleet.services.labels.take([told(names[which], label)], "clinic")
    for i, when in enumerate(known):
        if when >= len(steps):
            send(fleet, sample(ref, fleet, names[i]))
    last = dict(steps)
    expected = Counter((label, "still") for label in last.values() if label)
    assert Counter(sums(fleet, ref)) - before == expected
    assert before - Counter(sums(fleet, ref)) == Counter()


def test_an_answer_that_was_not_sampled_may_be_told_with_its_label(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    answer = ToldAnswer(
        device="d7", release=ref.digest, predicted="still", at_ms=fleet.clock() - MINUTE,
        slices={"side": "right"},
    )  # fmt: skip
    assert fleet.services.labels.take([told("q-1", "tilt", answer=answer)], "shop").joined == 1
    assert sums(fleet, ref, "side=right") == {("tilt", "still"): 1}
    with fleet.services.database.read() as connection:
        found = predictions.one(connection, "q-1")
    assert found is not None
    assert (found.told_by, found.device) == ("shop", "d7")


def test_a_caller_cannot_change_what_a_device_told(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    send(fleet, sample(ref, fleet, "p-1", "still"))
    answer = ToldAnswer(
        device="d1", release=ref.digest, predicted="tilt", at_ms=fleet.clock(), slices={}
    )
    fleet.services.labels.take([told("p-1", "tilt", answer=answer)], "shop")
    assert sums(fleet, ref) == {("tilt", "still"): 1}


def test_untrue_labels_are_refused_one_by_one(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    send(fleet, sample(ref, fleet, "p-1"), sample(ref, fleet, "p-2"))
    now = fleet.clock()

    def answer(**changes: Any) -> ToldAnswer:
        plain = ToldAnswer(device="d1", release=ref.digest, predicted="still", at_ms=now)
        return msgspec.structs.replace(plain, **changes)

    taken = fleet.services.labels.take(
        [
            told("p-1", "flying"),
            told("p-2", "still"),
            told("p-3", "still", known_ms=now + 2 * 3_600_000),
            told("p-4", "still", answer=answer(release="0" * 64)),
            told("p-5", "still", answer=answer(predicted="flying")),
            told("p-6", "still", answer=answer(slices={"side": "up"})),
            told("p-7", "still", answer=answer(target="toaster")),
            told("p-8", "still", answer=answer(at_ms=now + 2 * 3_600_000)),
        ],
        "clinic",
    )
    assert taken.joined == 1
    reasons = {each.prediction_id: each.reason for each in taken.refused}
    assert sorted(reasons) == ["p-1", "p-3", "p-4", "p-5", "p-6", "p-7", "p-8"]
    assert "no class 'flying'" in reasons["p-1"]
    assert "no slice 'side=up'" in reasons["p-6"]
    assert sums(fleet, ref) == {("still", "still"): 1}
    with pytest.raises(InvalidRequest, match="are taken at once"):
        fleet.services.labels.take([told("p", None)] * (MOST_AT_ONCE + 1), "clinic")


def test_old_predictions_are_forgotten_and_what_they_added_up_to_stays(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    send(fleet, sample(ref, fleet, "p-1"))
    fleet.services.labels.take([told("p-1", "tilt"), told("gone", "tilt")], "clinic")
    fleet.clock.now += 8 * 86_400_000
    fleet.services.labels.forget()
    with fleet.services.database.read() as connection:
        assert predictions.sample(connection, "p-1") == b""
        assert predictions.one(connection, "p-1") is not None
    fleet.clock.now += 90 * 86_400_000
    fleet.services.labels.forget()
    with fleet.services.database.read() as connection:
        assert predictions.one(connection, "p-1") is None
    status = fleet.services.label_status.of_model("tiny-motion")
    assert (status.waiting, status.never_joined) == (0, 1)
    assert sums(fleet, ref) == {("tilt", "still"): 1}
    with pytest.raises(NotFound):
        fleet.services.label_status.of_model("no such model")


def test_a_server_that_starts_again_goes_on_with_waiting_labels(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path
) -> None:
    fleet.services.labels.take([told("p-1", "tilt")], "clinic")
    with SpokenFleet(fleet.config, fleet.clock) as again:
        send(again, sample(ref, again, "p-1"))
        assert sums(again, ref) == {("tilt", "still"): 1}
