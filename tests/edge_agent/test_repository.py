"""The release repository as a device sees it, over a real connection."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge_agent.floor_file import FloorFile, StoredFloor
from edge_agent.repository import TufRepository
from edge_core.bundle import manifest as manifests
from edge_core.errors import Unavailable
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET


@pytest.fixture
def source(tmp_path: Path) -> Iterator[RepositorySimulator]:
    with RepositorySimulator(tmp_path / "source") as simulator:
        yield simulator


@pytest.mark.parametrize("name", ["timestamp.json", "manifest.json", "model.onnx"])
def test_a_connection_cut_in_the_middle_of_a_file_can_be_tried_again(
    tmp_path: Path, source: RepositorySimulator, name: str
) -> None:
    ref = source.publish("1.0.0")
    device = TufRepository(url=source.url, trusted_root=source.root, folder=tmp_path / "tuf")

    def fetch() -> None:
        manifest = manifests.parse(device.manifest(ref))
        device.file(ref, manifest.file(manifest.variant(TARGET).path), tmp_path / "model")

    source.cut.add(name)
    with pytest.raises(Unavailable, match=r"cannot be fetched.*(read|Incomplete)"):
        fetch()
    source.cut.clear()
    fetch()
    assert (tmp_path / "model").stat().st_size > 0


def test_what_was_ended_before_it_began_does_not_begin(
    tmp_path: Path, source: RepositorySimulator
) -> None:
    ref = source.publish("1.0.0")
    device = TufRepository(url=source.url, trusted_root=source.root, folder=tmp_path / "tuf")
    device.cancel()  # the thread that fetches may get its turn only now
    with pytest.raises(Unavailable, match="was ended"):
        device.manifest(ref)
    assert source.asked == []
    device.renew()
    device.manifest(ref)


def test_what_was_not_taken_is_removed(tmp_path: Path, source: RepositorySimulator) -> None:
    ref = source.publish("1.0.0")
    device = TufRepository(url=source.url, trusted_root=source.root, folder=tmp_path / "tuf")
    device.manifest(ref)
    device.clean()
    assert not any((tmp_path / "tuf" / "targets").iterdir())


DAY_MS = 86_400_000


def began_at(folder: Path, at_ms: int) -> None:
    """A device that knows from before that it is so late at least."""
    folder.mkdir()
    FloorFile(folder).write(StoredFloor(at_ms=at_ms, boot="", since_boot_ms=0))


def stored(folder: Path) -> int:
    floor = FloorFile(folder).read()
    assert floor is not None
    return floor.at_ms


def test_a_list_that_was_fresh_tells_how_late_it_is(
    tmp_path: Path, source: RepositorySimulator
) -> None:
    ref = source.publish("1.0.0")
    before = time.time_ns() // 1_000_000
    folder = tmp_path / "tuf"
    TufRepository(url=source.url, trusted_root=source.root, folder=folder).manifest(ref)
    assert before <= stored(folder) <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(("days", "role"), [(2, "timestamp"), (100, "releases")])
def test_a_list_that_ended_before_the_time_that_was_reached_is_refused(
    tmp_path: Path, source: RepositorySimulator, days: int, role: str
) -> None:
    """The clock is behind: by it alone, all is fresh."""
    ref = source.publish("1.0.0")
    if role == "releases":
        source.refresh(life=timedelta(days=400))
    reached = time.time_ns() // 1_000_000 + days * DAY_MS
    folder = tmp_path / "tuf"
    began_at(folder, reached)
    device = TufRepository(url=source.url, trusted_root=source.root, folder=folder)
    with pytest.raises(Unavailable, match=rf"has expired: {role}\.json has ended on .* at least"):
        device.manifest(ref)
    assert "set the clock" in device.time.trouble
    assert reached <= stored(folder) <= reached + DAY_MS
    if role == "timestamp":
        (folder / "time.json").unlink()  # nothing but the time that was reached is against it
        TufRepository(url=source.url, trusted_root=source.root, folder=folder).manifest(ref)


def test_a_list_that_ends_later_than_the_time_that_was_reached_is_taken(
    tmp_path: Path, source: RepositorySimulator
) -> None:
    ref = source.publish("1.0.0")
    reached = time.time_ns() // 1_000_000 + DAY_MS // 2
    began_at(tmp_path / "tuf", reached)
    device = TufRepository(url=source.url, trusted_root=source.root, folder=tmp_path / "tuf")
    device.manifest(ref)
    assert reached <= stored(tmp_path / "tuf") <= reached + DAY_MS
