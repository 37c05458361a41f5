"""With which memory a release begins, and what is refused for it."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sampling import Sampling
from edge_agent.serving.asking import NewEvents, Requests, SensorSamples
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.remembering import MAX_HELD_US, Remembering, Stored
from edge_agent.serving.window_memory import MAX_STREAMS
from edge_core.features.over_rows import Field
from edge_core.features.request_evaluation import EARLIEST
from tests.simulators.tiny_bundle import TARGET
from tests.simulators.tiny_requests import BEGIN, DEFINITION, define, tiny_requests

EVENT = NewEvents("parcels", [BEGIN], [1], {"place": ["p"], "kind": ["x"], "weight": [1.0]}, None)
REQUEST = Requests({"place": ["p"], "size": [1.0]}, 1)
PUSH = SensorSamples("wrist", np.arange(1, 6) * 20_000, np.ones((5, 2), np.float32))
ONCE = Sampling(1000)


def stored(release: LoadedRelease, parts: Mapping[str, bytes]) -> Stored:
    return Stored(definition=release.definition_digest, at_ms=BEGIN // 1000, parts=parts)


def parts_of(release: LoadedRelease) -> Mapping[str, bytes]:
    memory = release.begin()
    memory.take(EVENT if release.kind == "requests" else PUSH, BEGIN, ONCE)
    return memory.snapshot()


@pytest.mark.parametrize("kind", ["release", "parcels"])
def test_the_first_release_goes_on_with_what_was_stored(
    kind: str, request: pytest.FixtureRequest
) -> None:
    release: LoadedRelease = request.getfixturevalue(kind)
    parts = parts_of(release)
    remembering = Remembering()
    remembering.offer(stored(release, parts))
    memory = remembering.memory_of(release)
    assert (remembering.beginning, remembering.refused) == ("restored", 0)
    assert memory.snapshot() == parts
    remembered = remembering.last()
    assert remembered is not None
    assert (remembered.definition, remembered.parts) == (release.definition_digest, parts)
    # Asked again, it is the same one.
    assert remembering.memory_of(release) is memory
    assert remembering.beginning == "went on"


def test_another_definition_s_memory_is_refused(
    parcels: LoadedRelease, changed_parcels: LoadedRelease, caplog: pytest.LogCaptureFixture
) -> None:
    remembering = Remembering()
    remembering.offer(stored(parcels, parts_of(parcels)))
    with caplog.at_level(logging.WARNING):
        remembering.memory_of(changed_parcels)
    assert (remembering.beginning, remembering.refused) == ("empty", 1)
    assert "it belongs to other features than those of tiny-parcels@2.0.0" in caplog.text
    # What was stored is older than what this process saw: it is never taken later.
    remembering.memory_of(parcels)
    assert remembering.beginning == "empty"


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("parcels", {}),
        ("parcels", {"events": b"noise"}),
        ("parcels", {"events": b"", "more": b""}),
        ("release", {"wrist": b"noise"}),
        ("release", {"": b""}),
        ("release", {f"s{number}": b"" for number in range(MAX_STREAMS + 1)}),
    ],
)
def test_damaged_parts_are_refused_and_counted(
    kind: str, parts: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    release: LoadedRelease = request.getfixturevalue(kind)
    remembering = Remembering()
    remembering.offer(stored(release, parts))
    memory = remembering.memory_of(release)
    assert (remembering.beginning, remembering.refused) == ("empty", 1)
    memory.take(EVENT if kind == "parcels" else PUSH, BEGIN, ONCE)


def test_changes_tell_memories_apart(
    parcels: LoadedRelease, changed_parcels: LoadedRelease
) -> None:
    remembering = Remembering()
    seen = {remembering.changes}
    for release in (parcels, changed_parcels):
        memory = remembering.memory_of(release)
        seen.add(remembering.changes)
        for work in (EVENT, REQUEST):
            memory.take(work, BEGIN, ONCE)
            seen.add(remembering.changes)
    assert len(seen) == 7


def test_definitions_are_the_same_only_to_the_bit(tmp_path: Path) -> None:
    """0.0 and -0.0 are equal numbers, and other inputs of a model."""
    one, other = (
        LoadedRelease.open(
            tiny_requests(
                tmp_path / version,
                version=version,
                definition=define(
                    features=(
                        *DEFINITION.features[:-1],
                        Field(name="heft", input="size", default=x),
                    )
                ),
            ),
            TARGET,
        )
        for version, x in (("1.0.0", 0.0), ("1.1.0", -0.0))
    )
    assert one.definition == other.definition
    remembering = Remembering()
    assert remembering.memory_of(other) is not remembering.memory_of(one)
    assert remembering.beginning == "empty"
    remembered = remembering.last()
    assert remembered is not None
    # What is stored can be read by the release that it is stored for.
    one.restore(remembered.parts)
    assert "another feature definition" in one.shadow_problem(other)


@pytest.mark.parametrize(
    ("ahead_us", "beginning"),
    [(MAX_HELD_US, "restored"), (MAX_HELD_US + 1000, "empty"), (10**15, "empty")],
)
def test_a_memory_from_when_the_clock_was_far_ahead_is_refused(
    parcels: LoadedRelease, ahead_us: int, beginning: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = parcels.begin()
    memory.take(REQUEST, BEGIN + ahead_us, ONCE)
    # The clock is right again, time stands still, and so it is stored.
    memory.take(REQUEST, BEGIN, ONCE)
    remembering = Remembering()
    remembering.offer(stored(parcels, memory.snapshot()))
    now_us = remembering.memory_of(parcels).now_us
    assert remembering.beginning == beginning
    assert now_us == (BEGIN + ahead_us if beginning == "restored" else EARLIEST)
    assert ("hours ahead of the clock when it was stored" in caplog.text) == (beginning == "empty")
