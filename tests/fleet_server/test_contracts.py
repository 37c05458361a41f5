"""A release that answers otherwise has to say so in its version."""

from typing import Any

import msgspec
import pytest

from fleet_server.services import contracts
from fleet_server.services.catalog import Release
from fleet_server.services.errors import Conflict
from tests.simulators.spoken_fleet import SpokenFleet

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
