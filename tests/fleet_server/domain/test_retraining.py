"""When a model asks for training by itself."""

import pytest

from fleet_server.domain.retraining import DAY_MS, Cause, Past, Policy, due, first_state, lost

NOW = 1000 * DAY_MS


def past(days: float | None, *, unfinished: bool = False, since: float = 900) -> Past:
    last = None if days is None else round(NOW - days * DAY_MS)
    return Past(unfinished=unfinished, last_ms=last, since_ms=round(NOW - since * DAY_MS))


@pytest.mark.parametrize(
    ("policy", "before", "drifting", "cause"),
    [
        (Policy(model="m"), past(None), True, "drift"),
        (Policy(model="m"), past(None), False, None),
        (Policy(model="m", on_drift=False), past(None), True, None),
        (Policy(model="m"), past(0.5), True, None),  # it asked half a day ago
        (Policy(model="m"), past(1.5), True, "drift"),
        (Policy(model="m"), past(30, unfinished=True), True, None),
        (Policy(model="m", every_days=7), past(8), False, "schedule"),
        (Policy(model="m", every_days=7), past(6), False, None),
        (Policy(model="m", every_days=7), past(None, since=3), False, None),
        (Policy(model="m", every_days=7), past(None, since=8), False, "schedule"),
        (Policy(model="m", every_days=0.1), past(0.5), False, None),  # the cooldown is longer
    ],
)
def test_when_it_asks(policy: Policy, before: Past, drifting: bool, cause: Cause | None) -> None:
    assert due(policy, before, NOW, drifting=drifting) == cause


def test_what_is_suggested_waits_for_a_person_and_what_a_person_asks_does_not() -> None:
    assert first_state("suggest", "drift") == "suggested"
    assert first_state("suggest", "person") == "open"
    assert first_state("build", "schedule") == "open"


def test_a_request_is_given_out_three_times() -> None:
    assert [lost(attempts) for attempts in (1, 2, 3)] == ["open", "open", "failed"]
