"""Held-out devices beside the others: a loop is found, and chance is not taken for one."""

import numpy as np

from fleet_server.domain.feedback_loop import Group, RateDifference, compare


def group(rows: int, churned: int, labelled: int | None = None) -> Group:
    known = rows if labelled is None else labelled
    return Group(
        devices=10, rows=rows, labelled=known, labels={"stays": known - churned, "leaves": churned},
        right=known // 2, wrong=known - known // 2,
    )  # fmt: skip


def compared(holdout: Group, others: Group) -> dict[str, RateDifference]:
    found = compare(holdout, others, ["leaves", "stays"], design_effect=1.0, min_rows=50)
    return {difference.what: difference for difference in found}


def test_a_model_that_makes_its_own_labels_is_found() -> None:
    found = compared(group(2000, 400), group(20_000, 1000))
    assert found["label=leaves"].differs
    assert found["label=stays"].differs
    assert not found["labelled"].differs
    assert not found["accuracy"].differs


def test_labels_that_come_less_often_are_found() -> None:
    assert compared(group(2000, 100, 500), group(20_000, 2000, 10_000))["labelled"].differs


def test_chance_is_seldom_taken_for_a_loop() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        a, b = rng.binomial(500, 0.2), rng.binomial(5000, 0.2)
        wrong += any(d.differs for d in compared(group(500, int(a)), group(5000, int(b))).values())
    assert wrong <= 30  # 5 % of 400 are 20


def test_few_or_no_rows_say_nothing() -> None:
    assert not any(d.differs for d in compared(group(40, 40), group(5000, 0)).values())
    empty = Group(devices=0, rows=0, labelled=0, labels={}, right=0, wrong=0)
    assert all(d.difference is None for d in compared(empty, group(5000, 0)).values())
