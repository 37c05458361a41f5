"""Manifests compared: by what tells their entries apart, not by their order."""

from typing import Any

from fleet_server.domain.release_diff import differences

OLD: dict[str, Any] = {
    "model": "m",
    "version": "1.0.0",
    "metrics": {"accuracy": 0.9, "accuracy/side=left": 0.8},
    "variants": [{"target": "a", "latency_us": 5.0}, {"target": "b", "latency_us": 7.0}],
    "gates": [{"gate": "g", "slice": "x", "outcome": "passed"}],
    "output": {"classes": ["still", "shake"]},
    "files": [{"path": "f", "sha256": "1"}],
}


def places(new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {d.place: (d.before, d.after) for d in differences(OLD, OLD | new)}


def test_equal_manifests_do_not_differ() -> None:
    assert places({"version": "1.1.0"}) == {}


def test_entries_are_found_by_their_name_wherever_they_stand() -> None:
    turned = [{"target": "b", "latency_us": 7.0}, {"target": "a", "latency_us": 6.0}]
    assert places({"variants": turned}) == {"variants[a].latency_us": (5.0, 6.0)}


def test_what_is_new_and_what_is_gone() -> None:
    assert places({"variants": OLD["variants"][:1]}) == {
        "variants[b].latency_us": (7.0, None),
        "variants[b].target": ("b", None),
    }
    gates = [*OLD["gates"], {"gate": "g", "slice": "y", "outcome": "failed"}]
    assert places({"gates": gates})["gates[g y].outcome"] == (None, "failed")


def test_plain_lists_and_files_are_compared_as_a_whole() -> None:
    found = places({"output": {"classes": ["still"]}, "files": [{"path": "f", "sha256": "2"}]})
    assert found == {
        "output.classes": (["still", "shake"], ["still"]),
        "files[f]": ("1", "2"),
    }


def test_entries_that_nothing_tells_apart_are_compared_as_a_whole() -> None:
    same = [{"value": 1}, {"value": 2}]
    assert places({"waivers": same}) == {"waivers": (None, same)}
