"""Whatever labels come in whatever order, the sums are those of the last one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.domain import labelling
from fleet_server.domain.labelling import ALL, Answered, OutcomeKey

ANSWER = Answered(
    digest="d", policy="policy", arm="incumbent", slices={"side": "left", "age": "old"},
    predicted="still", at_ms=3 * labelling.DAY_MS + 5,
)  # fmt: skip


def test_a_label_counts_for_all_rows_and_for_each_slice() -> None:
    found = labelling.counts_of(ANSWER, "tilt")
    assert {key.slice for key in found} == {ALL, "side=left", "age=old"}
    assert set(found.values()) == {1}
    assert {(key.day, key.label, key.predicted) for key in found} == {(3, "tilt", "still")}


@given(st.lists(st.sampled_from([None, "still", "shake", "tilt"]), max_size=12))
def test_corrections_leave_the_sums_of_the_last_label_alone(told: list[str | None]) -> None:
    sums: Counter[OutcomeKey] = Counter()
    before = None
    for label in told:
        sums.update(labelling.change(ANSWER, before, label))
        before = label
    last = labelling.counts_of(ANSWER, before) if before else Counter()
    assert {key: count for key, count in sums.items() if count} == last


def test_delays_fall_into_powers_of_two() -> None:
    assert labelling.delay_bin(0, -5000) == 0  # a label store whose clock is behind
    assert labelling.delay_bin(0, 999) == 0
    assert labelling.delay_bin(0, 1000) == 1
    assert labelling.delay_bin(0, 300_000) == 9
    assert labelling.delay_bin(0, 2**60) == labelling.MAX_DELAY_BIN


def test_a_quantile_is_the_upper_end_of_its_bin() -> None:
    bins = {3: 50, 9: 45, 20: 5}
    assert labelling.quantile(bins, 0.5) == 8
    assert labelling.quantile(bins, 0.95) == 512
    assert labelling.quantile({}, 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        labelling.quantile(bins, 1.5)
