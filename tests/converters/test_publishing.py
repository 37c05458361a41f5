"""What may enter the release repository, and what a TUF client then sees."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tuf.api.metadata import Metadata, Targets

from converters import publishing, signing
from converters.refusal import RefusedByGate
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import GateResult, Manifest
from edge_core.errors import (
    InvalidBundle,
    InvalidConfiguration,
    ReleaseNotApproved,
    SerinusError,
    UntrustedBundle,
)
from tests.simulators.tiny_bundle import tiny_bundle

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Shop:
    """A repository, its keys, and a place for bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.keys = folder / "keys"
        signing.generate_key(self.keys)
        publishing.init_repository(self.repository, self.keys, NOW)

    def bundle(self, version: str = "1.0.0", seed: int = 0, name: str = "") -> Path:
        folder = self.folder / (name or f"{version}-{seed}")
        return tiny_bundle(
            folder, version=version, seed=seed, sign_with=self.keys / "statement.pem"
        )

    def publish(self, bundle: Path) -> str:
        return publishing.publish(bundle, self.repository, self.keys, NOW).digest

    def metadata(self, name: str) -> Path:
        return self.repository / "metadata" / name

    def listed(self, version: int) -> Targets:
        signed = Metadata.from_file(str(self.metadata(f"{version}.releases.json"))).signed
        assert isinstance(signed, Targets)
        return signed


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_an_empty_repository_has_two_of_three_root_keys_and_a_releases_delegation(
    shop: Shop,
) -> None:
    root = Metadata.from_file(str(shop.metadata("1.root.json"))).signed
    targets = Metadata.from_file(str(shop.metadata("1.targets.json"))).signed
    assert root.roles["root"].threshold == 2
    assert len(root.roles["root"].keyids) == 3
    assert root.consistent_snapshot
    assert list(targets.delegations.roles) == ["releases"]
    for path in (*shop.keys.glob("*.pem"), *shop.keys.glob("online/*.pem")):
        if path.name != signing.PUBLIC_KEY:
            assert path.stat().st_mode & 0o077 == 0


def test_init_overwrites_nothing(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="exists already"):
        publishing.init_repository(tmp_path / "other", shop.keys, NOW)
    with pytest.raises(InvalidConfiguration, match="exists already"):
        publishing.init_repository(shop.repository, tmp_path / "other-keys", NOW)


def test_a_published_bundle_is_listed_file_by_file_under_its_release(shop: Shop) -> None:
    bundle = shop.bundle()
    digest = shop.publish(bundle)
    listed = shop.listed(2)
    expected = {
        f"tiny-motion/1.0.0/{path.relative_to(bundle).as_posix()}"
        for path in bundle.rglob("*")
        if path.is_file()
    }
    assert set(listed.targets) == expected
    entry = listed.targets["tiny-motion/1.0.0/manifest.json"]
    assert entry.custom == {"serinus": {"kind": "release"}}
    assert entry.hashes == {"sha256": digest}
    for target in listed.targets.values():
        stored = shop.repository / "targets" / target.get_prefixed_paths()[0]
        target.verify_length_and_hashes(stored.read_bytes())


def test_publishing_leaves_the_online_roles_to_the_server(shop: Shop) -> None:
    names = ("1.snapshot.json", "timestamp.json", "1.targets.json", "1.root.json")
    before = {name: shop.metadata(name).read_bytes() for name in names}
    shop.publish(shop.bundle())
    assert {name: shop.metadata(name).read_bytes() for name in names} == before
    assert not shop.metadata("2.snapshot.json").exists()


def test_publishing_twice_changes_nothing(shop: Shop) -> None:
    shop.publish(shop.bundle())
    shop.publish(shop.folder / "1.0.0-0")
    assert not shop.metadata("3.releases.json").exists()


def test_a_version_keeps_its_bytes_also_after_it_was_revoked(shop: Shop) -> None:
    shop.publish(shop.bundle())
    with pytest.raises(InvalidBundle, match="new version"):
        shop.publish(shop.bundle(seed=1))
    publishing.revoke("tiny-motion@1.0.0", shop.repository, shop.keys, NOW)
    assert shop.listed(3).targets == {}
    with pytest.raises(InvalidBundle, match="new version"):
        shop.publish(shop.folder / "1.0.0-1")
    shop.publish(shop.folder / "1.0.0-0")
    assert len(shop.listed(4).targets) > 5


def test_revoking_takes_away_one_release_only(shop: Shop) -> None:
    shop.publish(shop.bundle("1.0.0"))
    shop.publish(shop.bundle("1.0.1"))
    publishing.revoke("tiny-motion@1.0.0", shop.repository, shop.keys, NOW)
    assert {path.split("/")[1] for path in shop.listed(4).targets} == {"1.0.1"}
    with pytest.raises(ReleaseNotApproved, match=r"tiny-motion@1\.0\.1"):
        publishing.revoke("tiny-motion@1.0.0", shop.repository, shop.keys, NOW)
    with pytest.raises(ReleaseNotApproved):
        publishing.revoke("tiny-motion", shop.repository, shop.keys, NOW)


def unsigned(shop: Shop) -> Path:
    bundle = shop.bundle()
    (bundle / "model.sig").unlink()
    return bundle


def signed_by_another_key(shop: Shop) -> Path:
    signing.generate_key(shop.folder / "foreign")
    return tiny_bundle(
        shop.folder / "bundle", sign_with=shop.folder / "foreign" / signing.PRIVATE_KEY
    )


def altered(shop: Shop) -> Path:
    bundle = shop.bundle()
    model = next(bundle.rglob("model.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    return bundle


def with_an_extra_file(shop: Shop) -> Path:
    bundle = shop.bundle()
    (bundle / "extra.py").write_text("print()")
    return bundle


def without_gates(shop: Shop) -> Path:
    bundle = shop.bundle()
    rewritten: Manifest = msgspec.structs.replace(folders.read(bundle), gates=[])
    (bundle / "manifest.json").write_bytes(manifests.serialize(rewritten))
    signing.sign_folder(bundle, shop.keys / signing.PRIVATE_KEY)
    return bundle


def signed_by_nobody_knows_whom(shop: Shop) -> Path:
    bundle = signed_by_another_key(shop)
    (shop.keys / signing.PUBLIC_KEY).unlink()
    return bundle


def failed_a_gate(shop: Shop) -> Path:
    bundle = shop.bundle()
    manifest = folders.read(bundle)
    failed = GateResult(gate="metric_drop", slice="side=left", outcome="no_evidence")
    rewritten: Manifest = msgspec.structs.replace(manifest, gates=[failed])
    (bundle / "manifest.json").write_bytes(manifests.serialize(rewritten))
    signing.sign_folder(bundle, shop.keys / signing.PRIVATE_KEY)
    return bundle


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (unsigned, UntrustedBundle, "not signed"),
        (signed_by_another_key, UntrustedBundle, "key"),
        (altered, InvalidBundle, "altered"),
        (with_an_extra_file, InvalidBundle, "extra.py"),
        (failed_a_gate, RefusedByGate, "metric_drop"),
        (without_gates, RefusedByGate, "no gate"),
        (signed_by_nobody_knows_whom, InvalidConfiguration, r"no .*statement\.pub\.pem"),
    ],
)
def test_a_bundle_that_must_not_be_approved_leaves_the_list_as_it_was(
    shop: Shop, make: Callable[[Shop], Path], kind: type[SerinusError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        shop.publish(make(shop))
    assert not shop.metadata("2.releases.json").exists()


def test_a_foreign_releases_key_approves_nothing(shop: Shop, tmp_path: Path) -> None:
    bundle = shop.bundle()
    publishing.init_repository(tmp_path / "other", tmp_path / "other-keys", NOW)
    shutil.copy(tmp_path / "other-keys" / "releases.pem", shop.keys / "releases.pem")
    with pytest.raises(UntrustedBundle, match=r"releases\.pem is not the key"):
        shop.publish(bundle)
    assert not shop.metadata("2.releases.json").exists()


def test_a_list_that_someone_else_signed_is_not_built_upon(shop: Shop, tmp_path: Path) -> None:
    publishing.init_repository(tmp_path / "other", tmp_path / "other-keys", NOW)
    foreign = tmp_path / "other" / "metadata"
    for name in ("1.targets.json", "1.releases.json", "1.root.json"):
        shutil.copy(foreign / name, shop.metadata(name))
    with pytest.raises(UntrustedBundle, match="not trusted"):
        shop.publish(shop.bundle())


@pytest.mark.parametrize(("old", "new"), [("2.releases", "9.releases"), ("1.targets", "2.targets")])
def test_an_old_list_under_a_newer_name_is_not_built_upon(shop: Shop, old: str, new: str) -> None:
    shop.publish(shop.bundle())
    publishing.revoke("tiny-motion@1.0.0", shop.repository, shop.keys, NOW)
    shutil.copy(shop.metadata(f"{old}.json"), shop.metadata(f"{new}.json"))
    with pytest.raises(UntrustedBundle, match="says that it is version"):
        shop.publish(shop.bundle("1.1.0"))
    assert not shop.metadata("10.releases.json").exists()


def test_a_missing_repository_or_key_is_named(shop: Shop, tmp_path: Path) -> None:
    bundle = shop.bundle()
    with pytest.raises(InvalidConfiguration, match="init-repository"):
        publishing.publish(bundle, tmp_path / "nowhere", shop.keys, NOW)
    (shop.keys / "releases.pem").unlink()
    with pytest.raises(InvalidConfiguration, match=r"releases\.pem"):
        shop.publish(bundle)
