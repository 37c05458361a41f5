"""How often verdicts are right, on drawn fleets: devices differ, wander and repeat themselves.

Every limit is on a share of seeded runs, with room for chance. In comments: what 300 runs gave.
"""

from collections import Counter

import numpy as np
import pytest

from fleet_server.domain.plan import Plan, Stage
from tests.simulators.evidence import Fleet, Truth, run

STAGES = [
    Stage(kind="shadow", share=1.0, min_seconds=5),
    Stage(kind="canary", share=0.25, min_seconds=5),
    Stage(kind="ramp", share=0.5, min_seconds=5),
]
PLAN = Plan(stages=STAGES)
STRICT = Plan(stages=STAGES, delta=0.02)
CANARY_ONLY = Plan(stages=[STAGES[1]])


def both(better: float) -> dict[str, float]:
    return {"left": better, "right": better}


def outcomes(
    truth: Truth, plan: Plan, *, runs: int, stage_seconds: float
) -> tuple[Counter[str], dict[str, float]]:
    """How often each outcome came, and the 95th percentile of its seconds."""
    seconds: dict[str, list[float]] = {}
    for seed in range(runs):
        outcome, elapsed, _ = run(Fleet(truth, np.random.default_rng(seed)), plan, stage_seconds)
        seconds.setdefault(outcome, []).append(elapsed)
    late = {outcome: float(np.percentile(found, 95)) for outcome, found in seconds.items()}
    return Counter({outcome: len(found) for outcome, found in seconds.items()}), late


def test_a_release_14_points_better_is_promoted_within_half_a_minute() -> None:
    # 300 of 300 promoted; all three stages took 18 s, 95 % of runs 22 s.
    truth = Truth(accuracy=0.67, better=both(0.14))
    found, seconds = outcomes(truth, PLAN, runs=60, stage_seconds=60)
    assert found == {"promoted": 60}
    assert seconds["promoted"] <= 30


def test_a_release_20_points_worse_on_one_side_is_rolled_back_within_20_seconds() -> None:
    # 300 of 300 rolled back, in 8 s; 95 % of runs in 12 s.
    truth = Truth(accuracy=0.81, better={"left": 0.0, "right": -0.2})
    found, seconds = outcomes(truth, PLAN, runs=60, stage_seconds=60)
    assert found == {"rolled back": 60}
    assert seconds["rolled back"] <= 20


def test_it_is_also_rolled_back_when_nobody_looked_in_the_shadow() -> None:
    # 300 of 300 rolled back, in 64 s; 95 % of runs in 134 s. With two or three devices on a side,
    # evidence that has to stand without any one of them takes twice as long.
    truth = Truth(accuracy=0.81, better={"left": 0.0, "right": -0.2})
    found, _ = outcomes(truth, CANARY_ONLY, runs=40, stage_seconds=240)
    assert found["rolled back"] >= 38
    assert found["promoted"] == 0


@pytest.mark.parametrize("plan", [PLAN, CANARY_ONLY])
def test_an_equal_release_is_seldom_rolled_back(plan: Plan) -> None:
    # 0 of 300 rolled back, neither in all stages nor in a canary alone.
    found, _ = outcomes(Truth(look_every=4.0), plan, runs=100, stage_seconds=100)
    assert found["rolled back"] <= 2


def test_a_release_3_points_worse_is_seldom_promoted_where_the_margin_is_2() -> None:
    # 0 of 300 promoted, 9 rolled back, the others undecided.
    truth = Truth(better=both(-0.03), look_every=4.0)
    found, _ = outcomes(truth, STRICT, runs=100, stage_seconds=100)
    assert found["promoted"] <= 2


def test_devices_that_differ_a_lot_do_not_fool_the_control() -> None:
    """Two candidates, two controls, no shadow: long looking must not make up a verdict."""
    truth = Truth(devices=8, device_effect=0.15, interaction=0.02, look_every=20.0)
    plan = Plan(stages=[Stage(kind="canary", share=0.25, min_seconds=5)])
    wrong = 0
    for seed in range(60):
        fleet = Fleet(truth, np.random.default_rng(seed), paired=False)
        wrong += run(fleet, plan, 1200)[0] == "rolled back"
    assert wrong <= 2
