"""Definitions are compiled once, few are kept, and what they remember is never shared."""

import pytest

from edge_core.features import definition as definitions
from edge_core.features.request_evaluation import RequestEvaluator
from fleet_server.services import evaluators
from fleet_server.services.evaluators import Evaluators
from tests.simulators import tiny_bundle, tiny_requests
from tests.simulators.tiny_requests import story


def test_a_definition_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    plain = evaluators._compiled

    def counted(definition: definitions.FeatureDefinition) -> evaluators.Compiled:
        made.append(definition)
        return plain(definition)

    monkeypatch.setattr(evaluators, "_compiled", counted)  # counts a call that leaves no trace
    kept = Evaluators()
    for _ in range(5):
        for definition in (tiny_bundle.DEFINITION, tiny_requests.DEFINITION):
            found = kept.of(definitions.digest(definition), definition)
            assert found.definition == definition
    assert made == [tiny_bundle.DEFINITION, tiny_requests.DEFINITION]


def test_the_one_used_least_recently_goes_first() -> None:
    kept = Evaluators(most=2)
    definition = tiny_bundle.DEFINITION
    first = kept.of("a", definition)
    kept.of("b", definition)
    assert kept.of("a", definition) is first
    kept.of("c", definition)
    assert len(kept) == 2
    assert kept.of("a", definition) is first


def test_resuming_leaves_the_compiled_one_as_it_is() -> None:
    told = story(60, 10)
    compiled = RequestEvaluator(tiny_requests.DEFINITION)
    empty = compiled.snapshot()
    full = RequestEvaluator(tiny_requests.DEFINITION)
    full.observe("parcels", told.events)
    for _ in range(2):
        again = compiled.resumed(full.snapshot())
        assert again.snapshot() == full.snapshot()
        request = {name: list(column)[-1:] for name, column in told.request.items()}
        request["at"] = [int(told.events.arrived_us[-1]) + 1]
        kept = full.snapshot()
        expected = RequestEvaluator.restore(tiny_requests.DEFINITION, kept).ask(request)
        assert again.ask(request).tobytes() == expected.tobytes()
        assert compiled.snapshot() == empty
