"""Bundles that are carried by hand, in front of an owner who changes them on the way."""

import shutil
from pathlib import Path

import msgspec
import pytest

from converters import signing
from edge_agent import sideload
from edge_agent.config import AgentConfig, Serving, Sideload
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.slots import Pointer, Slots
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle.manifest import PROVENANCE, Manifest
from edge_core.errors import InvalidBundle, NoDisk, SerinusError
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef
from tests.simulators.tiny_bundle import TARGET, tiny_bundle
from tests.simulators.tiny_requests import DEFINITION, golden_of, tiny_requests


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return signing.generate_key(tmp_path / "keys")


@pytest.fixture
def config(tmp_path: Path, key: Path) -> AgentConfig:
    (tmp_path / "state").mkdir()
    return AgentConfig(
        device="d",
        target=TARGET,
        state_dir=tmp_path / "state",
        serving=Serving(socket=tmp_path / "agent.sock"),
        sideload=Sideload(keys=[key.with_name("statement.pub.pem")]),
    )


@pytest.mark.parametrize("change", ["taken away", "another's", "a link"])
def test_a_bundle_without_its_own_provenance_is_not_installed(
    tmp_path: Path, key: Path, config: AgentConfig, change: str
) -> None:
    bundle = tiny_bundle(tmp_path / "usb", sign_with=key)
    sideload.install(tiny_bundle(tmp_path / "good", sign_with=key, version="0.9.0"), config)
    before = Slots(config.state_dir).digests()
    (bundle / PROVENANCE).unlink()
    if change == "another's":
        shutil.copy(tmp_path / "good" / PROVENANCE, bundle)
    if change == "a link":
        (bundle / PROVENANCE).symlink_to("/dev/zero")
    with pytest.raises(SerinusError, match=r"provenance"):
        sideload.install(bundle, config)
    assert Slots(config.state_dir).digests() == before


def test_files_that_change_after_the_check_are_not_installed(
    tmp_path: Path, key: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap has to hit one instant, so the check itself makes it."""
    good = tiny_bundle(tmp_path / "usb", sign_with=key)
    evil = tiny_bundle(tmp_path / "evil", seed=9)
    real, swapped = folders.check, []

    def check(folder: Path, manifest: Manifest, *, only: list[str] | None = None) -> None:
        real(folder, manifest, only=only)
        if not swapped:
            swapped.append(True)
            shutil.rmtree(good)
            shutil.copytree(evil, good)

    monkeypatch.setattr(folders, "check", check)
    with pytest.raises(InvalidBundle):
        sideload.install(good, config)
    assert Slots(config.state_dir).digests() == []
    assert Slots(config.state_dir).pointer() == Pointer()
    assert not any((config.state_dir / "slots").iterdir())


def test_a_release_installed_by_hand_is_not_judged_by_the_trial_of_another(
    tmp_path: Path, key: Path, config: AgentConfig
) -> None:
    ref = folders.ref(bundle := tiny_bundle(tmp_path / "usb", sign_with=key))
    other = ReleaseRef(model=ref.model, version="9.0.0", digest="9" * 64)
    desired = DesiredState(revision=7, issued_ms=0, active=other)
    journal = Journal(config.state_dir)
    journal.write(Entry(state="probation", desired=desired, starts=2))
    assert sideload.install(bundle, config) == ref
    entry = journal.read()
    assert (entry.state, entry.desired, entry.proven) == ("failed", desired, ref.digest)
    assert "by hand" in entry.reason


def test_what_was_proven_is_what_a_release_installed_by_hand_goes_back_to(
    tmp_path: Path, key: Path, config: AgentConfig
) -> None:
    first = sideload.install(tiny_bundle(tmp_path / "first", sign_with=key), config)
    bundle = tiny_bundle(tmp_path / "second", version="1.1.0", seed=1, sign_with=key)
    second = sideload.install(bundle, config)
    pointer = Slots(config.state_dir).pointer()
    assert pointer == Pointer(active=second.digest, previous=first.digest)
    entry = Journal(config.state_dir).read()
    assert (entry.state, entry.proven) == ("idle", second.digest)


def test_a_damaged_slot_is_installed_again(tmp_path: Path, key: Path, config: AgentConfig) -> None:
    bundle = tiny_bundle(tmp_path / "usb", sign_with=key)
    ref = sideload.install(bundle, config)
    slot = Slots(config.state_dir).path(ref.digest)
    model = next(slot.rglob("model.onnx"))
    whole = model.read_bytes()
    model.write_bytes(b"")
    sideload.install(bundle, config)
    assert model.read_bytes() == whole


def test_a_state_folder_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, key: Path, config: AgentConfig
) -> None:
    bundle = tiny_bundle(tmp_path / "usb", sign_with=key)
    (config.state_dir / "slots").write_bytes(b"")  # as a damaged file system has it
    with pytest.raises(NoDisk, match="cannot write the state folder"):
        sideload.install(bundle, config)


def test_without_a_pinned_key_nothing_is_installed(tmp_path: Path, config: AgentConfig) -> None:
    none = msgspec.structs.replace(config, sideload=Sideload(keys=[]))
    with pytest.raises(sideload.InvalidConfiguration):
        sideload.install(tiny_bundle(tmp_path / "usb"), none)


def test_a_bundle_of_requests_is_tested_by_its_golden_log(
    tmp_path: Path, key: Path, config: AgentConfig
) -> None:
    good = tiny_requests(tmp_path / "usb", sign_with=key)
    model = (good / f"variants/{TARGET}/model.onnx").read_bytes()
    golden = golden_of(DEFINITION, model, seed=0)
    altered = goldens.pack(golden._replace(features=golden.features + 1))
    liar = tiny_requests(tmp_path / "liar", version="1.1.0", sign_with=key, golden=altered)
    with pytest.raises(SerinusError, match="16 of 16 golden rows differ"):
        sideload.install(liar, config)
    ref = sideload.install(good, config)
    assert Slots(config.state_dir).pointer() == Pointer(active=ref.digest)
    assert Slots(config.state_dir).digests() == [ref.digest]
