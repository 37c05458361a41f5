"""A release that answers otherwise has to say so in its version."""

from typing import Any

import msgspec
import pytest

from fleet_server.services import contracts
from fleet_server.services.catalog import Release
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import audit, costs
from tests.simulators import tiny_bundle
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
CLASSES = ["still", "shake", "tilt"]


@pytest.fixture
def incumbent(fleet: SpokenFleet, repository: Any) -> Release:
    ref = fleet.approve(repository.publish("1.0.0"))
    with fleet.services.database.read() as connection:
        return fleet.services.catalog.require(connection, ref.digest)


def changed(release: Release, version: str, classes: list[str], name: str = "logits") -> Release:
    output = msgspec.structs.replace(release.manifest.output, classes=classes, name=name)
    return msgspec.structs.replace(
        release,
        ref=msgspec.structs.replace(release.ref, version=version, digest="f" * 64),
        manifest=msgspec.structs.replace(release.manifest, output=output),
    )


@pytest.mark.parametrize(
    ("classes", "name", "breaks"),
    [
        (CLASSES, "logits", False),
        ([*CLASSES, "fall"], "logits", False),  # who reads the old classes still reads them
        (CLASSES[:2], "logits", True),
        (["shake", "still", "tilt"], "logits", True),
        (["calm", "shake", "tilt"], "logits", True),
        (CLASSES, "scores", True),
    ],
)
def test_what_breaks_an_output_needs_the_next_major_version(
    fleet: SpokenFleet, incumbent: Release, classes: list[str], name: str, breaks: bool
) -> None:
    minor, major = (changed(incumbent, version, classes, name) for version in ("1.1.0", "2.0.0"))
    assert contracts.breaks(minor, incumbent) == breaks
    with fleet.services.database.read() as connection:
        contracts.check(connection, major, incumbent)
        contracts.check(connection, minor, None)
        if not breaks:
            contracts.check(connection, minor, incumbent)
            return
        with pytest.raises(Conflict, match="next MAJOR version"):
            contracts.check(connection, minor, incumbent)


def consumers(fleet: SpokenFleet) -> Any:
    return fleet.services.consumers


WHO = {"by": "ann", "role": "operator"}


def test_a_break_waits_for_every_declared_consumer(fleet: SpokenFleet, incumbent: Release) -> None:
    model = incumbent.ref.model
    major = changed(incumbent, "2.0.0", CLASSES[:2])
    minor = changed(incumbent, "1.1.0", CLASSES)
    for name in ("pager", "diary"):
        consumers(fleet).declare(model, name, "somebody", "", **WHO)

    def agreement(candidate: Release = major) -> contracts.Agreement:
        with fleet.services.database.read() as connection:
            return contracts.check(connection, candidate, incumbent)

    assert agreement(minor).missing == [], "what breaks nothing waits for nobody"
    with pytest.raises(Conflict, match="diary, pager has not acknowledged"):
        agreement()
    consumers(fleet).acknowledge(model, "pager", 2, "reads two classes", **WHO)
    consumers(fleet).acknowledge(model, "diary", 3, "", **WHO)
    with pytest.raises(Conflict, match="and diary has not"):
        agreement()
    consumers(fleet).withdraw(model, "diary", **WHO)
    assert agreement().breaks
    with fleet.services.database.read() as connection:
        actions = [entry.action for entry in audit.every(connection)]
    assert actions == [f"consumer.{what}" for what in (*["declare"] * 2, *["acknowledge"] * 2)] + [
        "consumer.withdraw"
    ]


def test_who_asks_without_being_declared_is_told_of_and_waited_for_by_nobody(
    fleet: SpokenFleet, incumbent: Release
) -> None:
    model = incumbent.ref.model
    with fleet.services.database.write() as connection:
        costs.add_consumer(connection, model, "script.py", 12, fleet.clock())
    consumers(fleet).declare(model, "pager", "somebody", "", **WHO)
    consumers(fleet).acknowledge(model, "pager", 2, "", **WHO)
    with fleet.services.database.read() as connection:
        found = contracts.check(connection, changed(incumbent, "2.0.0", CLASSES[:2]), incumbent)
    assert found.undeclared == ["script.py"]
    shown = [(v.consumer, v.declared, v.rows, v.acknowledged) for v in consumers(fleet).every()]
    assert shown == [("script.py", False, 12, []), ("pager", True, 0, [2])]


def test_nobody_is_declared_by_mistake(fleet: SpokenFleet, incumbent: Release) -> None:
    model = incumbent.ref.model
    with pytest.raises(NotFound):
        consumers(fleet).declare("other", "pager", "somebody", "", **WHO)
    for name, owner in (("", "x"), ("a\nb", "x"), ("pager", ""), ("x" * 300, "x")):
        with pytest.raises(InvalidRequest):
            consumers(fleet).declare(model, name, owner, "", **WHO)
    with pytest.raises(NotFound):
        consumers(fleet).acknowledge(model, "pager", 2, "", **WHO)
    with pytest.raises(NotFound):
        consumers(fleet).withdraw(model, "pager", **WHO)


def test_a_plan_says_who_uses_a_release(fleet: SpokenFleet, repository: Any) -> None:
    old = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(old, ["d1", "d2", "d3"])
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    with fleet.services.database.write() as connection:
        costs.add_consumer(connection, old.model, "script.py", 12, fleet.clock())
    forecast = fleet.services.rollouts.check(new.name, None)
    assert "used by script.py, which nobody declared; the release keeps its output" in (
        forecast.warnings
    )


def test_releases_tell_their_line_and_how_they_differ(fleet: SpokenFleet, repository: Any) -> None:
    old = fleet.approve(repository.publish("1.0.0"))
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    line = fleet.services.lineages.of(new.name)
    assert line.release.name == new.name
    assert line.release.built_from is not None
    found = fleet.services.lineages.diff(old.name, new.name)
    assert found.same_output
    assert found.same_features
    parts = {difference.part for difference in found.differences}
    assert "files" in parts
    assert not parts & {"model", "version"}
    assert fleet.services.lineages.diff(new.name, new.name).differences == []
    with pytest.raises(NotFound):
        fleet.services.lineages.diff(old.name, "tiny-motion@9.9.9")


def test_a_consumer_that_is_declared_meanwhile_holds_the_rollout(
    fleet: SpokenFleet, repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{number:02}" for number in range(20)]
    old = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(old, names)
    real = tiny_bundle._manifest

    def turned(model: str, version: str, seed: int, files: Any, classes: Any, *rest: Any) -> Any:
        return real(model, version, seed, files, list(reversed(classes)), *rest)

    monkeypatch.setattr(tiny_bundle, "_manifest", turned)
    new = fleet.approve(repository.publish("2.0.0", seed=1))
    for approvals, state in ((1, "needs_approval"), (0, "running")):
        stage = {"kind": "canary", "share": 0.25, "min_seconds": 0, "approvals": approvals}
        rollout = fleet.services.rollouts.start(
            new.name, {"stages": [stage], "strata": []}, "ann"
        ).rollout
        assert fleet.services.rollouts.one(rollout).state == state
        consumers(fleet).declare(old.model, "pager", "somebody", "", **WHO)
        if approvals:
            with pytest.raises(Conflict, match="pager has not"):
                fleet.services.rollouts.approve(rollout, "bob", "")
        else:
            fleet.decide()
            assert fleet.services.rollouts.one(rollout).state == "paused"
            with pytest.raises(Conflict, match="pager has not"):
                fleet.services.rollouts.resume(rollout, "ann", "")
            consumers(fleet).acknowledge(old.model, "pager", 2, "", **WHO)
            fleet.services.rollouts.resume(rollout, "ann", "")
            fleet.decide()
            assert fleet.services.rollouts.one(rollout).state == "running"
        if approvals:
            fleet.services.rollouts.abort(rollout, "ann", "")
            consumers(fleet).withdraw(old.model, "pager", **WHO)


def test_a_line_goes_down_to_the_last_descendant(
    fleet: SpokenFleet, repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.approve(repository.publish("1.0.0"))
    real, parent = tiny_bundle._manifest, first

    def born(*parts: Any) -> Any:
        return msgspec.structs.replace(real(*parts), parent=parent)

    monkeypatch.setattr(tiny_bundle, "_manifest", born)
    child = fleet.approve(repository.publish("1.1.0", seed=1))
    fleet.approve(repository.publish("1.2.0", seed=2))
    parent = child
    fleet.approve(repository.publish("1.3.0", seed=3))
    found = fleet.services.lineages.of(first.name).descendants
    names = [
        (one.name.partition("@")[2], one.parent.partition("@")[2], one.generation) for one in found
    ]
    assert names == [("1.1.0", "1.0.0", 1), ("1.3.0", "1.1.0", 2), ("1.2.0", "1.0.0", 1)]
    assert [a.name for a in fleet.services.lineages.of("tiny-motion@1.3.0").ancestors] == [
        child.name,
        first.name,
    ]


def other_hop(folder: Any, **options: Any) -> Any:
    """A bundle whose windows overlap less."""
    plain = tiny_bundle.DEFINITION
    window = msgspec.structs.replace(plain.window, hop=8)
    definition = msgspec.structs.replace(plain, window=window, features=plain.features[:3])
    return tiny_bundle.tiny_bundle(folder, definition=definition, **options)


def test_a_difference_of_features_is_told_by_what_they_are(
    fleet: SpokenFleet, repository: Any
) -> None:
    old = fleet.approve(repository.publish("1.0.0"))
    new = fleet.approve(repository.publish("1.1.0", build=other_hop))
    found = fleet.services.lineages.diff(old.name, new.name)
    assert not found.same_features
    told = {d.place: (d.before, d.after) for d in found.differences if d.part == "features"}
    assert told["features.window.hop"] == (4, 8)
    assert told["features.features[ay_std].name"] == ("ay_std", None)
