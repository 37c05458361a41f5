"""A short run of every surface, the same each time; ``make fuzz`` runs them for longer."""

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import running
from tests.fuzz.all_surfaces import SURFACES
from tests.fuzz.mutator import Case
from tests.fuzz.running import Tally
from tests.fuzz.surface import Surface
from tests.fuzz.trees import Extension, Pairs

SEED = 20_260_101
MOST_GROWTH = 1024 * 1024
"""Bytes that the second of two equal runs may add; what an agent keeps of answers is bounded."""


def _keyed(pairs: list[list[object]]) -> Pairs:
    return Pairs([str(key)[:40], value] for key, value in pairs)


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(Extension, st.integers(-128, 127), st.binary()),
    lambda inner: st.lists(inner) | st.lists(st.lists(inner, min_size=2, max_size=2)).map(_keyed),
    max_leaves=12,
)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Surface]:
    opened = SURFACES[request.param](tmp_path)
    yield opened
    opened.close()


def test_bad_inputs_are_refused_and_leave_nothing_behind(surface: Surface) -> None:
    running.welcome(surface)
    running.run(surface, SEED, lambda tally: tally.inputs < surface.short // 4)  # fills caches
    files = running.descriptors()
    tracemalloc.start()
    try:
        first = running.run(surface, SEED, lambda tally: tally.inputs < surface.short // 2)
        before = tracemalloc.get_traced_memory()[0]
        again = running.run(surface, SEED, lambda tally: tally.inputs < surface.short // 2)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert first.inputs == again.inputs == surface.short // 2
    assert again.refused > again.inputs // 20, "hardly anything was bad"
    assert grown < MOST_GROWTH
    gc.collect()
    assert running.descriptors() <= files


def test_whatever_has_the_form_is_refused_or_taken(surface: Surface) -> None:
    last = surface.forms[-1]

    def written(tree: object) -> bytes:
        try:
            return last.write(tree)
        except (TypeError, ValueError):  # a form whose top has to be of one type
            return repr(tree).encode("utf-8", "replace")

    parts = TREES.map(written) | st.binary()

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=15,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.sampled_from(surface.seeds), end=parts)
    def feed(seed: Case, end: bytes) -> None:
        with running.listening() as complaints:
            running.feed(surface, (*seed[:-1], end), Tally(), complaints)

    feed()
    running.check(surface, surface.seeds[0])
