"""Verdicts on evidence that is written down by hand."""

import random
from typing import Any

import msgspec
import pytest

from fleet_server.domain.cohort import Role
from fleet_server.domain.comparison import Figure
from fleet_server.domain.evidence import METHOD, Baseline, Cell, Evidence, Member
from fleet_server.domain.plan import Metrics, Plan, Stage
from fleet_server.domain.verdict import Verdict, judge

SHADOW = Stage(kind="shadow", share=1.0, min_seconds=10)
CANARY = Stage(kind="canary", share=0.5, min_seconds=10)
PLAN = Plan(stages=[SHADOW, CANARY])
SIDES = ["side=left", "side=right"]


def side(place: int) -> str:
    return SIDES[place % 2]


def shadowed(place: int, both: int, lost: int, won: int, neither: int, **more: Any) -> list[Cell]:
    """A device that runs the incumbent, with the candidate as its shadow."""
    name, rows = f"d{place}", both + lost + won + neither
    pairs = {"both_right": both, "only_active_right": lost, "only_shadow_right": won}
    return [
        Cell(device=name, arm="incumbent", slice=side(place), rows=rows, right=both + lost,
             wrong=rows - both - lost),
        Cell(device=name, arm="shadow", slice=side(place), rows=rows, right=both + won,
             wrong=rows - both - won, both_wrong=neither, **pairs, **more),
    ]  # fmt: skip


def serving(place: int, arm: str, right: int, wrong: int, **more: Any) -> Cell:
    return Cell(
        device=f"d{place}", arm=arm, slice=side(place), rows=right + wrong, right=right,
        wrong=wrong, **more,
    )  # fmt: skip


def members(role: Role, places: range, **facts: Any) -> list[Member]:
    facts = {"confirmed": True} | facts
    return [Member(device=f"d{place}", role=role, **facts) for place in places]


def evidence(cells: list[Cell], people: list[Member], **changes: Any) -> Evidence:
    plain = Evidence(
        method=METHOD,
        cells=cells,
        members=people,
        slices=SIDES,
        elapsed_seconds=60.0,
        has_incumbent=True,
    )
    return msgspec.structs.replace(plain, **changes)


def figure(verdict: Verdict, metric: str, slice_: str | None = None) -> Figure:
    (found,) = [f for f in verdict.evidence if (f.metric, f.slice) == (metric, slice_)]
    return found


BETTER = [cell for place in range(8) for cell in shadowed(place, 120, 5, 40, 35)]
PEOPLE = members("shadow", range(8))
GOOD = evidence(BETTER, PEOPLE)

CONTROLS = members("candidate", range(4)) + members("control", range(4, 8))
CANARIES = [
    *(serving(place, "candidate", 800, 200) for place in range(4)),
    *(serving(place, "control", 670, 330) for place in range(4, 8)),
]
BEFORE = [Baseline(device=f"d{i}", slice=side(i), right=670, wrong=330) for i in range(8)]


def test_a_better_release_passes_the_shadow_stage() -> None:
    verdict = judge(SHADOW, PLAN, GOOD)
    assert verdict.decision == "promote"
    overall = figure(verdict, "accuracy")
    assert overall.estimate == pytest.approx(35 / 200)
    assert (overall.rows, overall.devices) == (1600, 8)
    assert overall.e_not_worse >= 1 / PLAN.alpha
    assert figure(verdict, "accuracy", "side=left").rows == 800


def test_a_canary_can_pass_on_the_control_alone() -> None:
    """Where the device had no time to run the incumbent as shadow."""
    verdict = judge(CANARY, PLAN, evidence(CANARIES, CONTROLS, baselines=BEFORE))
    assert verdict.decision == "promote"
    assert figure(verdict, "accuracy").devices == 4


def test_what_was_usual_for_a_device_before_is_not_held_against_the_candidate() -> None:
    """Candidates drew the devices that always had less luck."""
    rates = [0.5] * 4 + [0.8] * 4
    before, cells = [], []
    for place, rate in enumerate(rates):
        name, right, wrong = f"d{place}", round(1000 * rate), round(1000 * (1 - rate))
        before.append(Baseline(device=name, slice=side(place), right=2 * right, wrong=2 * wrong))
        cells.append(serving(place, "candidate" if place < 4 else "control", right, wrong))
    known = judge(CANARY, PLAN, evidence(cells, CONTROLS, baselines=before))
    assert known.decision != "rollback"
    assert figure(known, "accuracy").estimate == pytest.approx(0, abs=0.03)


def test_worse_on_one_side_is_rolled_back_however_good_the_other() -> None:
    cells = [
        cell
        for place in range(8)
        for cell in (
            shadowed(place, 120, 5, 40, 35) if place % 2 else shadowed(place, 90, 60, 5, 45)
        )
    ]
    verdict = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
    assert verdict.decision == "rollback"
    assert "side=left" in verdict.reason
    assert figure(verdict, "accuracy", "side=right").e_worse < 1


def test_worse_everywhere_names_the_side_that_it_hurts_most() -> None:
    cells = [
        cell
        for place in range(8)
        for cell in (
            shadowed(place, 90, 60, 5, 45) if place % 2 else shadowed(place, 80, 75, 3, 42)
        )
    ]
    verdict = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
    assert verdict.decision == "rollback"
    assert verdict.reason.startswith("accuracy is worse by more than 5.0%: ")
    assert "; hurt most is side=left: -3" in verdict.reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cells": []}, "0 devices with labelled rows"),
        ({"members": []}, "0 of 0 devices confirmed"),
        ({"elapsed_seconds": 9.0}, "minimum time"),
        ({"elapsed_seconds": float("nan")}, "minimum time"),
        ({"drifting": True}, "drifting"),
        ({"cells": BETTER[:2]}, "1 devices with labelled rows"),
        ({"slices": [*SIDES, "side=both"]}, "no evidence yet for side=both"),
        ({"members": members("shadow", range(8), confirmed=False)}, "0 of 8 devices confirmed"),
    ],
)
def test_something_missing_holds(changes: dict[str, Any], says: str) -> None:
    verdict = judge(SHADOW, PLAN, msgspec.structs.replace(GOOD, **changes))
    assert verdict.decision == "hold"
    assert says in verdict.reason


@pytest.mark.parametrize("arm", ["candidate", "control", "incumbent"])
def test_one_arm_alone_proves_nothing(arm: str) -> None:
    cells = [serving(place, arm, 900, 100) for place in range(8)]
    verdict = judge(CANARY, PLAN, evidence(cells, CONTROLS, baselines=BEFORE))
    assert verdict.decision == "hold"
    assert figure(verdict, "accuracy").e_not_worse == 1.0


@pytest.mark.parametrize("cell", [(500, 0, 0, 0), (0, 0, 0, 500)])
def test_labels_that_never_vary_prove_nothing(cell: tuple[int, int, int, int]) -> None:
    cells = [found for place in range(8) for found in shadowed(place, *cell)]
    verdict = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
    assert verdict.decision == "hold"
    assert "same outcome" in verdict.reason


def test_a_rare_slice_passes_when_its_rows_do_not_point_to_worse() -> None:
    def with_rare(lost: int, won: int, same: int = 40) -> Verdict:
        rare = shadowed(8, same - 10, lost, won, 10)
        rare = [msgspec.structs.replace(cell, slice="side=both") for cell in rare]
        people = members("shadow", range(9))
        slices = [*SIDES, "side=both"]
        return judge(SHADOW, PLAN, evidence([*BETTER, *rare], people, slices=slices))

    assert with_rare(7, 9).decision == "promote"
    for verdict in (with_rare(16, 4), with_rare(0, 1), with_rare(350, 60, 2500)):
        assert verdict.decision == "hold"
        assert "side=both" in verdict.reason
    within_the_wider_margin = figure(with_rare(350, 60, 2500), "accuracy", "side=both")
    assert within_the_wider_margin.estimate == pytest.approx(-0.1, abs=0.002)
    # One device blames nobody, but beyond the narrower margin a person is to look.
    assert within_the_wider_margin.e_worse == 1


def test_refusals_roll_back() -> None:
    people = members("shadow", range(6)) + members("shadow", range(6, 8), refused=True)
    verdict = judge(SHADOW, PLAN, evidence(BETTER, people))
    assert verdict.decision == "rollback"
    assert "2 of 8 devices refused" in verdict.reason


def test_devices_that_fall_silent_roll_back_unless_the_control_does_too() -> None:
    silent = members("candidate", range(2), silent=True) + members("candidate", range(2, 4))
    well = members("control", range(4, 8))
    gone = members("control", range(4, 6), silent=True) + members("control", range(6, 8))
    verdict = judge(CANARY, PLAN, evidence(CANARIES, silent + well, baselines=BEFORE))
    assert verdict.decision == "rollback"
    assert "2 of 4 devices fell silent" in verdict.reason
    alike = judge(CANARY, PLAN, evidence(CANARIES, silent + gone, baselines=BEFORE))
    assert alike.decision == "hold"
    assert "2 of 4 devices confirmed" in alike.reason


def test_one_silent_device_is_a_flat_battery() -> None:
    people = members("candidate", range(1), silent=True) + members("candidate", range(1, 4))
    people += members("control", range(4, 8))
    verdict = judge(CANARY, PLAN, evidence(CANARIES, people, baselines=BEFORE))
    assert verdict.decision == "hold"


def test_devices_that_were_off_before_the_stage_are_waited_for_not_blamed() -> None:
    people = members("shadow", range(5)) + members(
        "shadow", range(5, 8), confirmed=False, silent=True
    )
    verdict = judge(SHADOW, PLAN, evidence(BETTER[:10], people))
    assert verdict.decision == "hold"
    assert "5 of 8" in verdict.reason


def test_a_few_missing_devices_do_not_stop_a_good_release() -> None:
    people = members("shadow", range(7)) + members("shadow", range(7, 8), confirmed=False)
    assert judge(SHADOW, PLAN, evidence(BETTER[:14], people)).decision == "promote"


def test_arms_out_of_balance_hold() -> None:
    """All devices confirmed, but most candidates send nothing."""
    people = members("candidate", range(12)) + members("control", range(12, 24))
    cells = [serving(place, "candidate", 800, 200) for place in range(3)]
    cells += [serving(place, "control", 670, 330) for place in range(12, 24)]
    before = [Baseline(device=f"d{i}", slice=side(i), right=670, wrong=330) for i in range(24)]
    verdict = judge(CANARY, PLAN, evidence(cells, people, baselines=before))
    assert verdict.decision == "hold"
    assert "of one arm" in verdict.reason


def test_failing_rows_roll_back() -> None:
    cells = [cell for place in range(8) for cell in shadowed(place, 120, 5, 40, 35, errors=60)]
    verdict = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
    assert verdict.decision == "rollback"
    assert verdict.reason.startswith("errors is worse")


def test_rows_that_fail_for_the_incumbent_too_are_not_the_candidates_fault() -> None:
    cells = [
        msgspec.structs.replace(cell, errors=60)
        for place in range(8)
        for cell in shadowed(place, 120, 5, 40, 35)
    ]
    assert judge(SHADOW, PLAN, evidence(cells, PEOPLE)).decision == "promote"


def test_slower_answers_roll_back_where_both_arms_have_some() -> None:
    fast, slow = [0] * 8 + [1000], [0] * 12 + [1000]

    def with_latency(ours: list[int], theirs: list[int]) -> Verdict:
        cells = [
            msgspec.structs.replace(c, latency=ours if c.arm == "candidate" else theirs)
            for c in CANARIES
        ]
        return judge(CANARY, PLAN, evidence(cells, CONTROLS, baselines=BEFORE))

    assert with_latency(slow, fast).reason.startswith("latency is worse")
    for ours, theirs in ((fast, fast), (fast, slow), (slow, []), ([], fast)):
        assert with_latency(ours, theirs).decision == "promote"


FALLBACKS = range(12), range(12, 24)


def with_fallbacks(ours: int, theirs: int) -> Verdict:
    """Twelve candidates and twelve controls with 1000 rows each, and so many fallbacks."""
    ranges, cells = FALLBACKS, []
    for places, arm, count in zip(ranges, ("candidate", "control"), (ours, theirs), strict=True):
        cells += [serving(place, arm, 700, 300) for place in places]
        cells += [
            Cell(device=f"d{place}", arm="fallback", slice=side(place), rows=count)
            for place in places
        ]
    people = members("candidate", ranges[0]) + members("control", ranges[1])
    return judge(CANARY, PLAN, evidence(cells, people, baselines=BEFORE))


def test_fallbacks_in_the_candidates_place_roll_back() -> None:
    verdict = with_fallbacks(900, 20)
    assert verdict.decision == "rollback"
    assert verdict.reason.startswith("fallback is worse")


def test_fallbacks_that_the_control_has_too_are_the_worlds() -> None:
    for ours, theirs in ((900, 900), (20, 900), (20, 20)):
        verdict = with_fallbacks(ours, theirs)
        assert verdict.decision != "rollback"
        assert figure(verdict, "fallback").e_worse < 1


def scored(cells: list[Cell], unusual: dict[str, float], **changes: Any) -> list[Cell]:
    """Every row has a confidence; so many of them, by arm, are unusual."""
    return [
        msgspec.structs.replace(
            cell,
            scored=cell.rows,
            unusual=round(cell.rows * unusual.get(cell.arm, 0.2)),
            **changes,
        )
        for cell in cells
    ]


def test_scores_that_leave_their_reference_roll_back_before_any_label_came() -> None:
    unlabelled = {"right": 0, "wrong": 0, "both_right": 0, "both_wrong": 0}
    unlabelled |= {"only_active_right": 0, "only_shadow_right": 0}
    cells = scored(BETTER, {"shadow": 0.9}, **unlabelled)
    verdict = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
    assert verdict.decision == "rollback"
    assert verdict.reason.startswith("scores is worse")
    usual = judge(SHADOW, PLAN, evidence(scored(BETTER, {}, **unlabelled), PEOPLE))
    assert usual.decision == "hold"
    drifted = scored(BETTER, {"shadow": 0.9, "incumbent": 0.9}, **unlabelled)
    assert judge(SHADOW, PLAN, evidence(drifted, PEOPLE)).decision == "hold"


def test_labels_have_the_last_word_over_scores() -> None:
    verdict = judge(SHADOW, PLAN, evidence(scored(BETTER, {"shadow": 0.9}), PEOPLE))
    assert figure(verdict, "scores").e_worse > figure(verdict, "scores").worse_at
    assert verdict.decision == "promote"


def test_each_metric_has_its_own_margins_and_alpha() -> None:
    def plan(**metrics: Any) -> Plan:
        return msgspec.structs.replace(PLAN, metrics=msgspec.convert(metrics, Metrics))

    strict = judge(SHADOW, plan(accuracy={"margin": 0.01, "allowed": 0.02, "alpha": 0.01}), GOOD)
    overall, left = figure(strict, "accuracy"), figure(strict, "accuracy", "side=left")
    assert (overall.margin, overall.allowed) == (0.01, 0.02)
    assert overall.worse_at == pytest.approx(5 / 0.01)
    # What a slice may lose follows from what the whole may, its alpha from the plan's.
    assert (left.margin, left.allowed, left.worse_at) == (0.01, 0.04, pytest.approx(5 / 0.05))
    slow = judge(CANARY, plan(latency={"margin": 0.4}), GOOD)
    assert figure(slow, "latency").margin == 0.4
    assert figure(slow, "errors").margin == PLAN.error_margin
    needed = judge(SHADOW, plan(accuracy={"alpha": 1e-60}), GOOD)
    assert needed.decision == "hold"
    assert "of 1e+60" in needed.reason


def test_a_drift_leaves_only_paired_rows_to_blame_a_release() -> None:
    cells = [
        *(serving(place, "candidate", 300, 700) for place in range(4)),
        *(serving(place, "control", 700, 300) for place in range(4, 8)),
    ]
    seen = evidence(cells, CONTROLS, baselines=BEFORE)
    assert judge(CANARY, PLAN, seen).decision == "rollback"
    drifting = msgspec.structs.replace(seen, drifting=True)
    assert judge(CANARY, PLAN, drifting).decision == "hold"
    worse = [cell for place in range(8) for cell in shadowed(place, 90, 60, 5, 45)]
    paired = evidence(worse, PEOPLE, drifting=True)
    assert judge(SHADOW, PLAN, paired).decision == "rollback"


def test_no_device_outweighs_the_fleet() -> None:
    """One device reports a million rows on which the candidate is always wrong."""
    liar = shadowed(8, 0, 1_000_000, 0, 1000)
    people = members("shadow", range(9))
    overall = figure(judge(SHADOW, PLAN, evidence(liar, people)), "accuracy")
    some = figure(judge(SHADOW, PLAN, evidence(shadowed(8, 0, 10_000, 0, 10), people)), "accuracy")
    assert overall.e_worse < some.e_worse**1.3


FIRST = [serving(place, "candidate", 0, 0, errors=0) for place in range(2)]


def first(cells: list[Cell], people: list[Member], **changes: Any) -> Verdict:
    return judge(CANARY, PLAN, evidence(cells, people, has_incumbent=False, **changes))


def test_a_first_release_has_to_arrive_answer_and_not_fail() -> None:
    people = members("candidate", range(4))
    served = [Cell(device=f"d{place}", arm="candidate", rows=100) for place in range(4)]
    assert first(served, people).decision == "promote"
    failing = [msgspec.structs.replace(cell, errors=10) for cell in served]
    assert first(failing, people).decision == "rollback"
    for verdict, says in (
        (first([], people), "0 devices served"),
        (first(served[:1], people), "1 devices served"),
        (first([msgspec.structs.replace(c, rows=5) for c in served], people), "20 rows served"),
        (first(served, members("candidate", range(4), confirmed=False)), "0 of 4"),
        (first(served, []), "0 of 0"),
        (first(served, people, elapsed_seconds=1.0), "minimum time"),
        (first(FIRST, people), "0 devices served"),
    ):
        assert verdict.decision == "hold"
        assert says in verdict.reason


def test_a_verdict_is_the_same_from_stored_inputs_in_any_order() -> None:
    for stage, seen in (
        (SHADOW, GOOD),
        (CANARY, evidence(CANARIES, CONTROLS, baselines=BEFORE)),
    ):
        verdict = msgspec.json.encode(judge(stage, PLAN, seen))
        stored = msgspec.json.decode(msgspec.json.encode(seen), type=Evidence)
        assert msgspec.json.encode(judge(stage, PLAN, stored)) == verdict
        rng = random.Random(5)
        mixed = msgspec.structs.replace(
            seen,
            cells=rng.sample(seen.cells, len(seen.cells)),
            members=rng.sample(seen.members, len(seen.members)),
            baselines=rng.sample(seen.baselines, len(seen.baselines)),
        )
        assert msgspec.json.encode(judge(stage, PLAN, mixed)) == verdict


def test_noisy_outcomes_promote_nothing_and_blame_nobody() -> None:
    """What would promote, or roll back, were the counts exact."""
    worse = [cell for place in range(8) for cell in shadowed(place, 90, 90, 5, 15)]
    for cells in (BETTER, worse):
        exact = judge(SHADOW, PLAN, evidence(cells, PEOPLE))
        assert exact.decision != "hold"
        noisy = judge(SHADOW, PLAN, evidence(cells, PEOPLE, noisy=True))
        assert noisy.decision == "hold"
        assert "labels carry noise for privacy" in noisy.reason
        assert [f.metric for f in noisy.evidence] == ["errors"]


def test_noisy_outcomes_do_not_hide_errors() -> None:
    cells = [
        *(serving(place, "candidate", 500, 200, errors=300) for place in range(4)),
        *(serving(place, "control", 670, 330) for place in range(4, 8)),
    ]
    verdict = judge(CANARY, PLAN, evidence(cells, CONTROLS, baselines=BEFORE, noisy=True))
    assert verdict.decision == "rollback"
    assert verdict.reason.startswith("errors is worse")


def test_noisy_outcomes_with_negative_counts_are_judged_without_a_crash() -> None:
    cells = [serving(0, "candidate", -30, 50), serving(4, "control", 10, -70)]
    verdict = judge(CANARY, PLAN, evidence(cells, CONTROLS, baselines=BEFORE, noisy=True))
    assert verdict.decision == "hold"
