"""Plans: what is accepted, and what is refused in one line."""

import msgspec
import pytest

from edge_core.errors import InvalidConfiguration
from fleet_server.domain import plan as plans
from fleet_server.domain.plan import DEFAULT_PLAN, MAX_PLAN_BYTES, Metric, Plan, Stage


def changed(**settings: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(DEFAULT_PLAN) | settings)


def test_a_plan_comes_back_from_its_json() -> None:
    assert plans.parse(msgspec.json.encode(DEFAULT_PLAN)) == DEFAULT_PLAN


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [{"kind": "shadow", "share": 0}]}, "share"),
        ({"stages": [{"kind": "canary", "share": 1.5}]}, "share"),
        ({"stages": [{"kind": "party", "share": 0.5}]}, "party"),
        ({"stages": [{"kind": "ramp", "share": 0.5}, {"kind": "canary", "share": 0.5}]}, "shadow"),
        ({"stages": [{"kind": "ramp", "share": 0.5}, {"kind": "ramp", "share": 0.2}]}, "grow"),
        ({"stages": [{"kind": "ramp", "share": 0.5}] * 17}, "stages"),
        ({"delta": 0}, "delta"),
        ({"alpha": 1}, "alpha"),
        ({"rows_per_observation": 0.5}, "rows_per_observation"),
        ({"device_correlation": 1}, "device_correlation"),
        ({"patience": 3}, "patience"),
        ({"v": 9}, "version 9"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidConfiguration, match=says) as caught:
        plans.parse(changed(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 10_000, b"null", b'{"delta": NaN}'])
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidConfiguration, match="not valid"):
        plans.parse(data)


def test_a_plan_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidConfiguration, match="the limit is"):
        plans.parse(b" " * (MAX_PLAN_BYTES + 1))


def test_a_first_release_has_nothing_to_run_in_the_shadow_of() -> None:
    assert [s.kind for s in plans.stages_for(DEFAULT_PLAN, has_incumbent=False)] == [
        "canary",
        "ramp",
    ]
    assert plans.stages_for(DEFAULT_PLAN, has_incumbent=True) == DEFAULT_PLAN.stages
    only = Plan(stages=[Stage(kind="shadow", share=1.0)])
    assert plans.stages_for(only, has_incumbent=False) == []


def test_margins_are_given_by_metric() -> None:
    plan = plans.parse(
        b'{"stages": [{"kind": "shadow", "share": 1}], "metrics": {"accuracy": {"margin": 0.005}}}'
    )
    assert plan.metrics.accuracy == Metric(margin=0.005)
    assert plan.metrics.errors == Metric()


@pytest.mark.parametrize(
    "metrics",
    [
        b'{"speed": {}}',
        b'{"accuracy": {"delta": 0.1}}',
        b'{"accuracy": {"margin": -0.1}}',
        b'{"accuracy": {"allowed": 0}}',
        b'{"slices": {"alpha": 1}}',
        b'{"errors": {"margin": NaN}}',
    ],
)
def test_metrics_that_mean_nothing_are_refused(metrics: bytes) -> None:
    with pytest.raises(InvalidConfiguration):
        plans.parse(b'{"stages": [{"kind": "shadow", "share": 1}], "metrics": ' + metrics + b"}")
