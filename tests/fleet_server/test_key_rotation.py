"""Every key is replaced once, with the real server and real devices that are away or attacked."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from edge_agent.repository import TufRepository
from edge_core.errors import ReleaseNotApproved, SerinusError, UntrustedBundle
from edge_core.release import ReleaseRef
from fleet_server.config import RepositoryConfig, ServerConfig
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.storage.database import Database
from tests.fleet_server.test_repository import listed, open_titles
from tests.simulators.ceremony import Team, done, fingerprint, served

REFUSED = 3


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rotation") / "begun"
    folder.mkdir()
    team = Team(folder)
    team.begin()
    team.publish("1.0.0")
    return folder


@pytest.fixture
def team(begun: Path, tmp_path: Path) -> Team:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return Team(tmp_path)


@pytest.fixture
def url(team: Team, watch: RepositoryWatch) -> Iterator[str]:
    """The repository after the server has seen it, on a web server."""
    watch.look()
    with served(team.repository) as address:
        yield address


class Device:
    """The real client, its folder kept from one refresh to the next."""

    def __init__(self, team: Team, url: str, name: str = "device") -> None:
        root = (team.keys / "1.root.json").read_bytes()
        self._folder = team.folder / name
        self._repository = TufRepository(url=url, trusted_root=root, folder=self._folder)

    def takes(self, ref: ReleaseRef) -> None:
        """Refresh and fetch a manifest; raises where it is not approved."""
        self._repository.manifest(ref)

    def root_version(self) -> int:
        path = self._folder / "metadata" / "root.json"
        return Metadata.from_file(str(path)).signed.version


def known(team: Team) -> ReleaseRef:
    manifest = next((team.repository / "targets/tiny-motion/1.0.0").glob("*.manifest.json"))
    return ReleaseRef(model="tiny-motion", version="1.0.0", digest=manifest.name.split(".")[0])


def online_key(team: Team, role: str, folder: Path) -> None:
    """The server makes a new key; its public part is handed to the people."""
    done("root", "keygen", role, "--folder", folder, "--no-passphrase")


def signer(path: Path) -> CryptoSigner:
    return CryptoSigner(load_pem_private_key(path.read_bytes(), None))


def later(days: int = 30) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def test_a_device_that_slept_through_three_roots_follows_the_chain(
    team: Team, url: str, watch: RepositoryWatch, catalog: Catalog, database: Database
) -> None:
    device = Device(team, url)
    device.takes(known(team))
    for number, (leaves, comes) in enumerate((("ben", "dan"), ("cara", "eve"), ("ada", "finn"))):
        team.keygen(comes)
        present = [("ada", "cara"), ("ada", "dan"), ("dan", "eve")][number]
        team.change_root(
            f"--remove=root={leaves}", f"--add=root={team.public(comes)}", signers=present
        )
    ref = team.publish("1.1.0", seed=1)
    watch.look()
    assert listed(catalog, database) == {"tiny-motion@1.0.0": True, "tiny-motion@1.1.0": True}
    for each in (device, Device(team, url, "new")):
        each.takes(ref)
        assert each.root_version() == 4
    path = team.propose("--expires-in=100d")
    assert team.sign(path, "ada").code == REFUSED  # she left


def test_the_server_takes_new_online_keys_without_a_restart(
    team: Team, url: str, watch: RepositoryWatch, database: Database
) -> None:
    device = Device(team, url)
    device.takes(known(team))
    fresh = team.folder / "fresh"
    for role in ("snapshot", "timestamp"):
        online_key(team, role, fresh)
    team.change_root(
        *(f"--replace={role}={fresh / f'{role}.pub.json'}" for role in ("snapshot", "timestamp"))
    )
    watch.look()
    assert any("no key in" in title for title in open_titles(database))
    for role in ("snapshot", "timestamp"):
        shutil.copy(fresh / f"{role}.pem", team.online / f"new-{role}.pem")
    watch.look()
    assert open_titles(database) == []
    ref = team.publish("1.1.0", seed=1)
    watch.look()
    device.takes(ref)
    stamp = Metadata.from_file(str(team.repository / "metadata" / "timestamp.json"))
    assert list(stamp.signatures) == [signer(fresh / "timestamp.pem").public_key.keyid]


def test_a_releases_key_is_replaced_with_no_moment_without_updates(
    team: Team, url: str, watch: RepositoryWatch
) -> None:
    device = Device(team, url)
    ref = known(team)
    home = team.folder / "next"
    done("root", "keygen", "releases-2", "--folder", home, "--no-passphrase")
    team.change_delegation(f"--add={home / 'releases-2.pub.json'}")
    watch.look()
    device.takes(ref)  # still by the old key's list
    assert team.renew("--key", home / "releases-2.pem").code == 0
    watch.look()
    device.takes(ref)
    team.change_delegation("--remove=releases")
    watch.look()
    device.takes(ref)
    said = team.renew()
    assert said.code == 2
    assert "is not the key" in said.err


def thiefs_list(team: Team) -> ReleaseRef:
    """What somebody with the releases key approves: a release that nobody of the team built."""
    metadata = team.repository / "metadata"
    mine = Metadata[Targets].from_file(str(metadata / "2.releases.json"))
    place = team.repository / "targets" / "tiny-motion" / "6.6.6"
    place.mkdir()
    for name in ("manifest.json", "model.sig", "features.json", "reference.bin"):
        entry = TargetFile.from_data(f"tiny-motion/6.6.6/{name}", b"evil", ["sha256"])
        if name == "manifest.json":
            entry.unrecognized_fields["custom"] = {"serinus": {"kind": "release"}}
        mine.signed.targets[entry.path] = entry
        (place / f"{entry.hashes['sha256']}.{name}").write_bytes(b"evil")
    mine.signed.version = 99
    mine.sign(signer(team.keys / "releases.pem"))
    (metadata / "99.releases.json").write_bytes(mine.to_bytes())
    digest = TargetFile.from_data("x", b"evil", ["sha256"]).hashes["sha256"]
    return ReleaseRef(model="tiny-motion", version="6.6.6", digest=digest)


def test_a_stolen_releases_key_is_replaced_and_its_list_not_taken_over(
    team: Team, url: str, watch: RepositoryWatch, database: Database
) -> None:
    device = Device(team, url)
    evil = thiefs_list(team)
    watch.look()
    device.takes(evil)  # the delegation says so
    home = team.folder / "next"
    done("root", "keygen", "releases-2", "--folder", home, "--no-passphrase")
    team.change_delegation(f"--replace={home / 'releases-2.pub.json'}")
    watch.look()
    with pytest.raises(UntrustedBundle):
        device.takes(evil)
    key = ("--key", home / "releases-2.pem")
    said = team.renew(*key)
    assert said.code == 2
    assert "--take-over VERSION" in said.err
    said = team.renew(*key, "--take-over", "99")
    assert said.code == 2  # the thief has no statement key
    assert "statement" in said.err or "signature" in said.err
    said = team.renew(*key, "--take-over", "2")
    assert said.code == 0, said.err
    assert "list 100 of 1 releases" in said.out
    watch.look()
    device.takes(known(team))
    with pytest.raises(ReleaseNotApproved):
        device.takes(evil)
    assert open_titles(database) == []
    assert team.renew(*key, "--take-over", "77").code == 2


def test_the_targets_key_is_replaced_by_root_and_delegation_at_once(
    team: Team, url: str, watch: RepositoryWatch
) -> None:
    device = Device(team, url)
    team.keygen("targets-2")
    root = team.root_of(f"--replace=targets={team.public('targets-2')}", signers=("ada", "cara"))
    place = ("--repository", team.repository, "--next-root", root)
    path = team.folder / "delegation.json"
    done("delegation", "propose", "--out", path, *place)
    done(
        "delegation", "sign", path, *place, "--key", team.private("targets-2"),
        "--passphrase-file", team.secret("targets-2"), "--fingerprint", fingerprint(path),
    )  # fmt: skip
    said = done("root", "publish", root, "--delegation", path, "--repository", team.repository)
    assert "no delegation" not in said
    (team.repository / "metadata" / "2.targets.json").unlink()  # as if it was cut off between
    done("root", "publish", root, "--delegation", path, "--repository", team.repository)
    ref = team.publish("1.1.0", seed=1)
    watch.look()
    device.takes(ref)
    assert device.root_version() == 2


def test_a_root_alone_that_replaces_the_targets_key_says_what_is_missing(
    team: Team, url: str, watch: RepositoryWatch
) -> None:
    device = Device(team, url)
    team.keygen("targets-2")
    path = team.root_of(f"--replace=targets={team.public('targets-2')}", signers=("ada", "ben"))
    said = done("root", "publish", path, "--repository", team.repository)
    assert "no delegation is signed by this root's targets key" in said
    with pytest.raises(UntrustedBundle, match="no targets metadata"):
        watch.look()
    team.change_delegation(signer="targets-2")
    watch.look()
    device.takes(known(team))


def fast_forward(team: Team) -> list[Path]:
    """Whoever has the online keys: versions that no honest list will reach."""
    metadata = team.repository / "metadata"
    snapshot = Metadata(
        Snapshot(
            version=900_000_000,
            expires=later(),
            meta={"targets.json": MetaFile(1), "releases.json": MetaFile(2)},
        )
    )
    stamp = Metadata(
        Timestamp(version=900_000_000, expires=later(), snapshot_meta=MetaFile(900_000_000))
    )
    for role, signed in (("snapshot", snapshot), ("timestamp", stamp)):
        signed.sign(signer(team.online / f"{role}.pem"))
    far = metadata / "900000000.snapshot.json"
    far.write_bytes(snapshot.to_bytes())
    (metadata / "timestamp.json").write_bytes(stamp.to_bytes())
    return [far, metadata / "timestamp.json"]


@pytest.mark.parametrize("files", ["taken away", "left there"])
def test_a_fast_forward_is_undone_by_new_online_keys(
    team: Team, url: str, watch: RepositoryWatch, files: str
) -> None:
    device = Device(team, url)
    made = fast_forward(team)
    device.takes(known(team))
    if files == "taken away":
        for path in made:
            path.unlink()
    watch.look()
    if files == "taken away":
        with pytest.raises(SerinusError):  # the device waits for version 900,000,001
            device.takes(known(team))
    fresh = team.folder / "fresh"
    for role in ("snapshot", "timestamp"):
        online_key(team, role, fresh)
        shutil.copy(fresh / f"{role}.pem", team.online / f"{role}.pem")
    team.change_root(
        *(f"--replace={role}={fresh / f'{role}.pub.json'}" for role in ("snapshot", "timestamp"))
    )
    ref = team.publish("1.1.0", seed=1)
    watch.look()
    device.takes(ref)


def test_the_server_opens_encrypted_online_keys(
    team: Team, catalog: Catalog, database: Database, tmp_path: Path
) -> None:
    fresh = team.folder / "fresh"
    for role in ("snapshot", "timestamp"):
        team.keygen(role, fresh)
    team.change_root(
        *(f"--replace={role}={fresh / f'{role}.pub.json'}" for role in ("snapshot", "timestamp"))
    )
    secret = tmp_path / "both.passphrase"
    secret.write_text("long enough for snapshot\n")
    bare = ServerConfig(data_dir=str(tmp_path), repository=RepositoryConfig(online_keys=str(fresh)))
    RepositoryWatch(bare, catalog).look()
    assert any("did not open: set repository.online_pass" in t for t in open_titles(database))
    settings = RepositoryConfig(online_keys=str(fresh), online_passphrase_file=str(secret))
    shutil.copy(fresh / "snapshot.pem", fresh / "one.pem")
    RepositoryWatch(msgspec.structs.replace(bare, repository=settings), catalog).look()
    assert any("timestamp key" in t for t in open_titles(database))  # it has another passphrase
    snapshots = (team.repository / "metadata").glob("*.snapshot.json")
    assert len(list(snapshots)) == 1
