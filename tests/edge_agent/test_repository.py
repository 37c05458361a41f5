"""The release repository as a device sees it, over a real connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
