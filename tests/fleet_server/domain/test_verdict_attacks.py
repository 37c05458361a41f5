"""Evidence that is damaged, or made up by one device: what must not follow from it."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.domain import comparison
from fleet_server.domain.columns import ARMS, COUNTS, Columns
from fleet_server.domain.evidence import METHOD, Baseline, Cell, Evidence, Member
from fleet_server.domain.packed_cells import PackedCells
from fleet_server.domain.plan import Metric, Metrics, Plan, Stage
from fleet_server.domain.verdict import Verdict, judge
from tests.simulators.evidence import Fleet, Truth

SHADOW = Stage(kind="shadow", share=1.0, min_seconds=10)
CANARY = Stage(kind="canary", share=0.5, min_seconds=10)
PLAN = Plan(
    stages=[SHADOW, CANARY],
    metrics=Metrics(
        accuracy=Metric(margin=0.005, allowed=0.02), slices=Metric(margin=0.02, allowed=0.04)
    ),
)
SIDES = ("side=left", "side=right")
HUGE = 10**9
SECONDS = 40.0


def fleet(stage: Stage, *, better: float = 0.0, devices: int = 40, seed: int = 3) -> Evidence:
    truth = Truth(devices=devices, better={"left": better, "right": better}, look_every=SECONDS)
    (seen,) = Fleet(truth, np.random.default_rng(seed)).looks(stage, PLAN, SECONDS)
    return seen


def lying(seen: Evidence, device: str, *, right: bool, rows: int = HUGE) -> Evidence:
    """One device claims many rows, with the same outcome for the candidate in every one."""

    def lie(cell: Cell) -> Cell:
        ours = cell.arm == "candidate" or (cell.arm == "shadow" and _is_shadow_stage(seen))
        good = right if ours else not right
        won, lost = (rows, 0) if right else (0, rows)
        if not _is_shadow_stage(seen):
            won, lost = lost, won
        pairs = (
            {"only_shadow_right": won, "only_active_right": lost} if cell.arm == "shadow" else {}
        )
        return Cell(
            device=cell.device,
            arm=cell.arm,
            slice=cell.slice,
            rows=rows,
            right=rows if good else 0,
            wrong=0 if good else rows,
            latency=[0] * 7 + [rows],
            **pairs,
        )

    cells = [lie(cell) if cell.device == device else cell for cell in seen.cells]
    return msgspec.structs.replace(seen, cells=cells)


def _is_shadow_stage(seen: Evidence) -> bool:
    return any(member.role == "shadow" for member in seen.members)


def candidate_of(seen: Evidence) -> str:
    return next(m.device for m in seen.members if m.role in ("candidate", "shadow"))


def whole(verdict: Verdict) -> comparison.Figure:
    return verdict.evidence[0]


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
def test_one_device_that_calls_everything_wrong_rolls_nothing_back(stage: Stage) -> None:
    for seed in range(5):
        seen = fleet(stage, seed=seed)
        verdict = judge(stage, PLAN, lying(seen, candidate_of(seen), right=False))
        assert verdict.decision == "hold"


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
def test_one_device_that_calls_everything_right_promotes_nothing(stage: Stage) -> None:
    for seed in range(5):
        seen = fleet(stage, better=-0.06, seed=seed)
        verdict = judge(stage, PLAN, lying(seen, candidate_of(seen), right=True))
        assert verdict.decision != "promote"
        assert whole(verdict).e_not_worse < 1 / PLAN.alpha


def test_a_lie_is_the_same_however_large() -> None:
    seen = fleet(SHADOW)
    device = candidate_of(seen)
    some, many = (
        whole(judge(SHADOW, PLAN, lying(seen, device, right=False, rows=rows)))
        for rows in (10_000, HUGE)
    )
    assert many.e_worse == pytest.approx(some.e_worse)
    assert many.e_not_worse == pytest.approx(some.e_not_worse)
    assert many.estimate == pytest.approx(some.estimate)
    # Twice the rows of the median device: two devices' part of forty-one.
    honest = whole(judge(SHADOW, PLAN, seen)).estimate
    assert many.estimate is not None
    assert honest is not None
    assert abs(many.estimate - honest) <= 2 / 41 * 1.1


def test_one_device_alone_in_a_slice_can_ask_for_a_person_but_blames_nobody() -> None:
    seen = fleet(SHADOW, better=0.1)
    device = candidate_of(seen)
    cells = [
        msgspec.structs.replace(cell, slice="side=both") if cell.device == device else cell
        for cell in seen.cells
    ]
    alone = msgspec.structs.replace(seen, cells=cells, slices=[*SIDES, "side=both"])
    verdict = judge(SHADOW, PLAN, lying(alone, device, right=False))
    assert verdict.decision == "hold"
    assert "looks worse on side=both" in verdict.reason


def test_one_device_whose_rows_all_fail_rolls_nothing_back() -> None:
    for stage in (SHADOW, CANARY):
        seen = fleet(stage, better=0.1)
        device = candidate_of(seen)
        cells = [
            msgspec.structs.replace(cell, errors=HUGE) if cell.device == device else cell
            for cell in seen.cells
        ]
        verdict = judge(stage, PLAN, msgspec.structs.replace(seen, cells=cells))
        assert verdict.decision != "rollback"
        first = msgspec.structs.replace(seen, cells=cells, has_incumbent=False)
        if stage is CANARY:
            assert judge(stage, PLAN, first).decision == "promote"


def test_one_control_that_claims_to_be_fast_makes_nobody_slow() -> None:
    seen = fleet(CANARY, better=0.1)
    control = next(m.device for m in seen.members if m.role == "control")
    cells = [
        msgspec.structs.replace(cell, latency=[HUGE]) if cell.device == control else cell
        for cell in seen.cells
    ]
    verdict = judge(CANARY, PLAN, msgspec.structs.replace(seen, cells=cells))
    assert verdict.decision == "promote"
    (latency,) = [figure for figure in verdict.evidence if figure.metric == "latency"]
    assert latency.estimate == pytest.approx(0, abs=0.001)


def test_one_device_that_sees_both_outcomes_does_not_make_broken_labels_good() -> None:
    seen = fleet(SHADOW)
    device = candidate_of(seen)

    def broken(cell: Cell) -> Cell:
        rows = cell.rows
        pairs = {"both_right": rows} if cell.arm == "shadow" else {}
        return Cell(
            device=cell.device, arm=cell.arm, slice=cell.slice, rows=rows, right=rows, **pairs
        )

    cells = [cell if cell.device == device else broken(cell) for cell in seen.cells]
    verdict = judge(SHADOW, PLAN, msgspec.structs.replace(seen, cells=cells))
    assert verdict.decision == "hold"
    assert "same outcome" in verdict.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -5])
@pytest.mark.parametrize("stage", [SHADOW, CANARY])
@pytest.mark.parametrize("better", [0.15, -0.3])
def test_what_is_no_count_decides_nothing(stage: Stage, value: Any, better: float) -> None:
    """A decoder lets none of these through; a mistake of ours might."""
    seen = fleet(stage, better=better)
    cells = [
        msgspec.structs.replace(cell, latency=[value] * 3, **dict.fromkeys(COUNTS, value))
        for cell in seen.cells
    ]
    before = [
        Baseline(device=m.device, slice=SIDES[0], right=value, wrong=value) for m in seen.members
    ]
    verdict = judge(stage, PLAN, msgspec.structs.replace(seen, cells=cells, baselines=before))
    assert verdict.decision == "hold"
    for figure in verdict.evidence:
        assert (figure.e_worse, figure.e_not_worse) == (1.0, 1.0)
        assert figure.estimate is None


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
def test_no_cell_and_no_member_decide_nothing(stage: Stage) -> None:
    nothing = Evidence(
        method=METHOD, cells=[], members=[], elapsed_seconds=math.inf, has_incumbent=True
    )
    assert judge(stage, PLAN, nothing).decision == "hold"
    first = msgspec.structs.replace(nothing, has_incumbent=False)
    assert judge(stage, PLAN, first).decision == "hold"


COUNT = st.one_of(st.integers(0, 40), st.integers(0, 2**40))
CELL = st.builds(
    Cell,
    device=st.sampled_from([f"d{place}" for place in range(6)]),
    arm=st.sampled_from(["incumbent", "candidate", "control", "shadow", "fallback"]),
    slice=st.sampled_from([*SIDES, ""]),
    latency=st.lists(COUNT, max_size=4),
    **dict.fromkeys(COUNTS, COUNT),
)
ROLE = st.sampled_from(["candidate", "control", "shadow", "none"])


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(CELL, max_size=14),
    roles=st.lists(ROLE, min_size=6, max_size=6),
    stage=st.sampled_from([SHADOW, CANARY]),
    seed=st.integers(0, 2**32 - 1),
)
def test_order_and_grouping_of_windows_change_nothing(
    cells: list[Cell], roles: list[Any], stage: Stage, seed: int
) -> None:
    """Cells are sums of windows: any split of them, in any order, is judged to the same bytes."""
    rng = np.random.default_rng(seed)
    whole = Evidence(
        method=METHOD,
        cells=cells,
        baselines=[Baseline(device="d1", slice=SIDES[0], right=30, wrong=10)],
        members=[
            Member(device=f"d{place}", role=role, confirmed=True)
            for place, role in enumerate(roles)
        ],
        slices=list(SIDES),
        elapsed_seconds=60.0,
        has_incumbent=True,
    )
    parts = [part for cell in cells for part in _split(cell, rng)]
    mixed = msgspec.structs.replace(
        whole,
        cells=[parts[place] for place in rng.permutation(len(parts))],
        members=[whole.members[place] for place in rng.permutation(6)],
    )
    half = len(mixed.cells) // 2
    packed = msgspec.structs.replace(
        mixed, cells=mixed.cells[:half], packed=_packed(mixed.cells[half:])
    )
    stored = msgspec.json.decode(msgspec.json.encode(packed), type=Evidence)
    for incumbent in (True, False):
        found = {
            msgspec.json.encode(
                judge(stage, PLAN, msgspec.structs.replace(e, has_incumbent=incumbent))
            )
            for e in (whole, mixed, packed, stored)
        }
        assert len(found) == 1


def _packed(cells: list[Cell]) -> PackedCells:
    bins = max((len(cell.latency) for cell in cells), default=0)
    latency = [cell.latency + [0] * (bins - len(cell.latency)) for cell in cells]
    return PackedCells.of(
        [cell.device for cell in cells],
        [cell.slice for cell in cells],
        [cell.arm for cell in cells],
        {name: [getattr(cell, name) for cell in cells] for name in COUNTS},
        np.array(latency, np.int64).reshape(len(cells), bins),
    )


@pytest.mark.parametrize("counts", [{}, {"rows": b"\x01"}, {"rows": b"\x01\x02\x03"}])
def test_columns_that_are_not_of_one_length_are_refused(counts: dict[str, bytes]) -> None:
    seen = [Cell(device="d1", arm="shadow", rows=5), Cell(device="d2", arm="shadow", rows=6)]
    packed = msgspec.structs.replace(_packed(seen), counts=counts, slice=b"\0")
    with pytest.raises(ValueError, match="does not hold 2 numbers"):
        Columns.of(Evidence(packed=packed, members=[], elapsed_seconds=1.0, has_incumbent=True))


def _split(cell: Cell, rng: np.random.Generator) -> list[Cell]:
    """Two windows that add up to one."""
    first = {name: int(rng.integers(0, getattr(cell, name) + 1)) for name in COUNTS}
    rest = {name: getattr(cell, name) - first[name] for name in COUNTS}
    bins = [int(rng.integers(0, count + 1)) for count in cell.latency]
    left = [count - taken for count, taken in zip(cell.latency, bins, strict=True)]
    return [
        msgspec.structs.replace(cell, latency=latency, **values)
        for latency, values in ((bins, first), (left, rest))
    ]


def test_arrays_hold_what_the_cells_held() -> None:
    seen = fleet(CANARY)
    cells = Columns.of(seen)
    names = sorted({cell.device for cell in seen.cells} | {m.device for m in seen.members})
    by_key = {(c.device, c.arm, c.slice): c for c in seen.cells}
    before = {(entry.device, entry.slice): entry for entry in seen.baselines}
    assert len(cells.device) == len(by_key)
    for place, device in enumerate(cells.device.tolist()):
        arm = ARMS[int(cells.arm[place])]
        cell = by_key[names[device], arm, cells.slices[int(cells.slice[place])]]
        assert [cells[name][place] for name in COUNTS] == [getattr(cell, n) for n in COUNTS]
        entry = before[cell.device, cell.slice]
        assert cells.known[:, place].tolist() == [entry.right, entry.wrong]


def test_labels_that_never_vary_blame_no_canary() -> None:
    """Its devices were better than the control's before, so a constant looks like a loss."""
    roles = [("candidate", place) for place in range(12)] + [("control", p) for p in range(12, 24)]
    cells = [
        Cell(device=f"d{place:02d}", arm=arm, slice=SIDES[place % 2], rows=4000, right=4000)  # type: ignore[arg-type]
        for arm, place in roles
    ]
    before = [
        Baseline(
            device=f"d{place:02d}",
            slice=SIDES[place % 2],
            right=3900 if arm == "candidate" else 2000,
            wrong=100 if arm == "candidate" else 2000,
        )
        for arm, place in roles
    ]
    people = [Member(device=f"d{place:02d}", role=arm, confirmed=True) for arm, place in roles]  # type: ignore[arg-type]
    seen = Evidence(
        method=METHOD, cells=cells, baselines=before, members=people, slices=list(SIDES),
        elapsed_seconds=60.0, has_incumbent=True,
    )  # fmt: skip
    verdict = judge(CANARY, PLAN, seen)
    assert whole(verdict).e_worse > whole(verdict).worse_at
    assert verdict.decision == "hold"
    assert "same outcome" in verdict.reason
