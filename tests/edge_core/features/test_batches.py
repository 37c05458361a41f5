"""Long logs at once leave the same values and the same state as one event after the other."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge_core.features import batches, entities, replay
from edge_core.features.logs import Events
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Keep

from .test_request_evaluation import SECOND, define

STEPS = 128
SEEDS = range(12)
KEEPS = {
    "room": Keep(),
    "few entities": Keep(entities=3),
    "few events": Keep(events=12),
    "few of each": Keep(events_per_entity=4),
    "room by forgetting": Keep(events=150, events_per_entity=90),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the log many parts, and forgetting frequent."""
    monkeypatch.setattr(batches, "STEPS", STEPS)
    monkeypatch.setattr(batches, "COMPACTED", 4)
    monkeypatch.setattr(entities, "COMPACTED", 4)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many parts took the short cut, and how many did not."""
    found: Counter[str] = Counter()
    at_once = batches._at_once

    def counted(*args: Any) -> Any:
        read = at_once(*args)
        found["slow" if read is None else "fast"] += 1
        return read

    monkeypatch.setattr(batches, "_at_once", counted)
    return found


def log(seed: int, late: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Events and requests of about ten minutes; some events ahead, old, or late."""
    rng = np.random.default_rng(seed)
    count = 500
    arrived = np.sort(rng.integers(0, 600 * SECOND, count))
    times = arrived.copy()
    times[rng.random(count) < 0.02] += 3 * SECOND
    times[rng.random(count) < 0.02] -= 11 * SECOND
    behind = rng.random(count) < late
    times[behind] -= rng.integers(0, 8 * SECOND, int(behind.sum()))
    values = np.where(rng.random(count) < 0.2, np.nan, rng.normal(0, 20, count))
    events = {
        "times_us": times,
        "sequence": np.arange(count),
        "arrived_us": arrived,
        "fields": {
            "place": rng.choice(["a", "b", "c", "d"], count).tolist(),
            "kind": rng.choice(np.array(["x", "y", None], object), count).tolist(),
            "value": values.astype(np.float32),
        },
    }
    # Some requests of the very moment of an event.
    moments = np.concatenate([rng.integers(0, 620 * SECOND, 250), rng.choice(arrived, 50)])
    request = {
        "at_time": np.sort(moments),
        "place": rng.choice(["a", "b", "c", "d", "e"], len(moments)).tolist(),
        "size": rng.normal(size=len(moments)),
    }
    return events, request


def one_by_one(
    evaluator: RequestEvaluator, events: dict[str, Any], request: dict[str, Any]
) -> bytes:
    moments = [*events["arrived_us"].tolist(), *request["at_time"].tolist()]
    count = len(events["arrived_us"])
    found = b""
    for step in np.argsort(moments, kind="stable").tolist():
        if step < count:
            row = slice(step, step + 1)
            fields = {name: column[row] for name, column in events["fields"].items()}
            stamps = (events[name][row] for name in ("times_us", "sequence", "arrived_us"))
            evaluator.observe("seen", Events(*stamps, fields))
        else:
            row = slice(step - count, step - count + 1)
            asked = {name: column[row] for name, column in request.items()}
            found += evaluator.ask(asked).tobytes()
    return found


@pytest.mark.parametrize("late", [0.0, 0.004, 0.1])
@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_values_and_state_are_the_same(seed: int, keep: Keep, late: float) -> None:
    definition = define(keep)
    events, request = log(seed, late)
    at_once, by_itself = RequestEvaluator(definition), RequestEvaluator(definition)
    found = at_once.replay({"seen": Events(**events)}, request)
    assert found.tobytes() == one_by_one(by_itself, events, request)
    assert at_once.snapshot() == by_itself.snapshot()


@pytest.mark.parametrize(
    ("keep", "late", "slow"),
    [
        ("room", 0.0, False),
        ("room", 0.1, False),
        ("room by forgetting", 0.0, False),
        ("few events", 0.0, True),
    ],
)
def test_the_short_cut_is_taken_where_it_holds(
    keep: str, late: float, slow: bool, ways: Counter[str]
) -> None:
    events, request = log(0, late)
    RequestEvaluator(define(KEEPS[keep])).replay({"seen": Events(**events)}, request)
    assert bool(ways["slow"]) == slow
    assert sum(ways.values()) == 2 * -(-800 // STEPS)


def test_an_entity_whose_events_all_expired_goes_on() -> None:
    evaluator = RequestEvaluator(define())
    events, request = log(1, 0.0)
    evaluator.replay({"seen": Events(**events)}, request)
    row = {name: column[:1] for name, column in request.items()}
    first = evaluator.ask({**row, "at_time": [10_000 * SECOND]})
    assert evaluator.ask({**row, "at_time": [20_000 * SECOND]}).tobytes() == first.tobytes()


def test_a_log_over_longer_than_one_number_can_tell() -> None:
    """Entity and time do not fit one int64."""
    definition = define()
    moments = np.array([0, 1, 5, 2**60, 2**60 + 3, 2**61, 2**61 + 1])
    events = {
        "times_us": moments,
        "sequence": np.arange(7),
        "arrived_us": moments,
        "fields": {"place": list("abababa"), "kind": ["x"] * 7, "value": np.arange(7.0)},
    }
    request = {"at_time": moments + 2, "place": list("aabbaab"), "size": np.zeros(7)}
    at_once, by_itself = RequestEvaluator(definition), RequestEvaluator(definition)
    found = at_once.replay({"seen": Events(**events)}, request)
    assert found.tobytes() == one_by_one(by_itself, events, request)
    assert at_once.snapshot() == by_itself.snapshot()


def test_more_texts_than_a_table_holds() -> None:
    """Keys of two fields with so many values that their pairs are sorted instead."""
    names = [f"n{number}" for number in range(3000)]
    events, requests = [names, names[::-1]], [names[:10], names[-10:][::-1]]
    keys, (first, second) = replay.TextNumbers().entities([events, requests])
    assert [keys[place] for place in first.tolist()] == list(zip(*events, strict=True))
    assert second.tolist() == first[:10].tolist()
    assert len(keys) == len(names)
