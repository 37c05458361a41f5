"""The runner finds what a surface does wrong."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from edge_core.errors import InvalidInput
from tests.fuzz import running, trees
from tests.fuzz.forms import JSON, MSGPACK
from tests.fuzz.mutator import Case, Mutator
from tests.fuzz.running import Found, Tally
from tests.fuzz.surface import Surface

SEEDS: list[Case] = [(b'{"a":[1,2.5,"x"],"b":{"c":null}}',), (b"[true]",)]


class Bad(Surface):
    """Does what it is told with every input."""

    name = "bad"
    forms = (JSON,)

    def __init__(self, folder: Path, act: Any = lambda: 0, *, right: bool = True) -> None:
        self.seeds = SEEDS
        self.count = 0
        self._act = act
        self._right = right

    def feed(self, case: Case) -> int:
        found: int = self._act()
        return found

    def counted(self) -> int:
        return self.count

    def check(self) -> None:
        assert self._right


def fail(error: Exception) -> Any:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (fail(KeyError("x")), "KeyError"),
        (fail(InvalidInput("no")), "1 refusals were counted as 0"),
        (lambda: 3, "3 refusals were counted as 0"),
        (lambda: logging.getLogger("edge_agent").error("the thread failed") or 0, "logged"),
        (lambda: time.sleep(5) or 0, "took more than"),
    ],
)
def test_what_must_not_happen_is_found_with_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Any, said: str
) -> None:
    monkeypatch.setattr(running, "SECONDS_EACH", 0.2)
    with running.listening() as complaints, pytest.raises(Found, match=said) as found:
        running.feed(Bad(tmp_path, act), SEEDS[0], Tally(), complaints)
    assert found.value.case == SEEDS[0]


def test_good_input_that_is_not_answered_any_more_is_found(tmp_path: Path) -> None:
    with pytest.raises(Found, match="not answered as before"):
        running.check(Bad(tmp_path, right=False), SEEDS[0])


def test_a_good_input_that_is_refused_is_found(tmp_path: Path) -> None:
    bad = Bad(tmp_path)

    def refuse() -> int:
        bad.count += 1
        raise InvalidInput("no")

    bad._act = refuse
    with pytest.raises(Found, match="a good input is refused"):
        running.welcome(bad)


def test_an_input_is_stored_and_read_again(tmp_path: Path) -> None:
    case = (b"a", b"\xff" * 1000)
    assert running.load(running.store(tmp_path, "socket", case)) == ("socket", case)


def test_one_seed_gives_the_same_inputs_and_another_others() -> None:
    def drawn(seed: int) -> list[Case]:
        mutator = Mutator(seed, (JSON,), SEEDS)
        return [mutator.case() for _ in range(200)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 100


@pytest.mark.parametrize("form", [JSON, MSGPACK])
def test_a_tree_is_written_as_it_was_read(form: Any) -> None:
    tree = trees.of({"a": [1, -2, 2**40, 2.5, "ü", None, True], "b": {"c": {}}})
    assert form.read(form.write(tree)) == tree


def test_maps_may_hold_a_key_twice_and_numbers_may_be_huge() -> None:
    twice = trees.Pairs([["a", 1], ["a", 10**30]])
    assert trees.write_json(twice) == b'{"a":1,"a":1000000000000000000000000000000}'
    assert trees.write_msgpack(twice)[:4] == b"\x82\xa1a\x01"
