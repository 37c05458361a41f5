"""Which starts of the process speak against a release."""

from pathlib import Path

import pytest

from edge_agent.boot import boot_id
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.starts import MOST_POWER_CUTS, Starts
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef

REF = ReleaseRef(model="m", version="1.0.0", digest="1" * 64)
WISH = DesiredState(revision=1, issued_ms=0, active=REF)


def started(folder: Path, boot: str) -> Starts:
    """A start on one run of the machine; what ended the one before left no word."""
    journal = Journal(folder)
    starts = Starts(journal, 3, boot)
    starts.count(journal.read())
    return starts


def counts(folder: Path) -> tuple[int, int, int]:
    entry = Journal(folder).read()
    return entry.starts, entry.unhealthy_starts, entry.power_cuts


@pytest.mark.parametrize(("state", "place"), [("probation", 0), ("committed", 1)])
def test_starts_after_the_machine_went_down_are_borne_for_long_but_not_for_ever(
    tmp_path: Path, state: str, place: int
) -> None:
    Journal(tmp_path).write(Entry(state=state, desired=WISH, boot="before"))
    for number in range(MOST_POWER_CUTS):
        started(tmp_path, f"boot {number}")
        assert counts(tmp_path) == (0, 0, number + 1)
    started(tmp_path, "another")
    assert counts(tmp_path)[place] == 1


def test_starts_on_the_same_run_of_the_machine_and_where_nobody_knows_are_counted(
    tmp_path: Path,
) -> None:
    Journal(tmp_path).write(Entry(state="committed", desired=WISH))
    started(tmp_path, "one")  # a journal of before has no boot
    started(tmp_path, "one")
    started(tmp_path, "")
    started(tmp_path, "one")
    assert counts(tmp_path) == (0, 4, 0)


def test_an_orderly_stop_and_a_healthy_while_take_back_what_was_counted(tmp_path: Path) -> None:
    Journal(tmp_path).write(Entry(state="committed", desired=WISH, boot="one", power_cuts=4))
    started(tmp_path, "two").stopped()
    assert counts(tmp_path) == (0, 0, 4)
    started(tmp_path, "three").healthy(Journal(tmp_path).read())
    assert counts(tmp_path) == (0, 0, 0)


def test_the_kernel_names_the_run_of_the_machine(tmp_path: Path) -> None:
    assert boot_id() == boot_id() != ""
    assert boot_id(tmp_path / "none") == ""
