"""The server reads and refreshes a repository that the real publisher made."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from converters import publishing
from edge_core.errors import SerinusError, UntrustedBundle
from fleet_server import repository as reader
from fleet_server.config import ServerConfig
from fleet_server.repository_refresh import Refresher
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.storage import journal
from fleet_server.storage.database import Database


class FolderFetcher(FetcherInterface):
    """Serves a folder to the public TUF client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Any:
        from tuf.api.exceptions import DownloadHTTPError

        path = self._folder / url.removeprefix("file://")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        yield path.read_bytes()


def names_as_a_device_sees_them(folder: Path, root: Path, work: Path) -> set[str]:
    """Paths that the public TUF client finds through the server's snapshot and timestamp."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    updater = Updater(
        str(work),
        "file://metadata/",
        str(work),
        "file://targets/",
        FolderFetcher(folder),
        UpdaterConfig(prefix_targets_with_hash=True),
        bootstrap=root.read_bytes(),
    )
    updater.refresh()
    found = {
        f"tiny-motion/{version}/manifest.json"
        for version in ("1.0.0", "1.1.0")
        if updater.get_targetinfo(f"tiny-motion/{version}/manifest.json")
    }
    for path in found:
        info = updater.get_targetinfo(path)
        assert info is not None
        updater.download_target(info)
    return found


def listed(catalog: Catalog, database: Database) -> dict[str, bool]:
    with database.read() as connection:
        return {r.ref.name: r.listed for r in catalog.every(connection)}


def open_titles(database: Database) -> list[str]:
    with database.read() as connection:
        return [alert.title for alert in journal.open_alerts(connection, "repository")]


def test_a_published_release_is_listed_for_server_and_devices(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database, tmp_path: Path
) -> None:
    watch.look()
    assert listed(catalog, database) == {}
    ref = repository.publish("1.0.0")
    watch.look()
    assert listed(catalog, database) == {"tiny-motion@1.0.0": True}
    with database.read() as connection:
        assert catalog.by_name(connection, "tiny-motion@1.0.0").ref == ref
    root = repository.keys / "1.root.json"
    work = tmp_path / "device"
    assert names_as_a_device_sees_them(repository.folder, root, work) == {
        "tiny-motion/1.0.0/manifest.json"
    }
    repository.publish("1.1.0", seed=1)
    watch.look()
    assert len(names_as_a_device_sees_them(repository.folder, root, work)) == 2


def test_a_revoked_release_is_no_longer_listed(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database
) -> None:
    repository.publish("1.0.0")
    watch.look()
    now = datetime.now(UTC)
    publishing.revoke("tiny-motion@1.0.0", repository.folder, repository.keys, now)
    watch.look()
    assert listed(catalog, database) == {"tiny-motion@1.0.0": False}


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_list_does_not_undo_a_revocation(
    repository: Any, config: ServerConfig, catalog: Catalog, database: Database, damage: str
) -> None:
    for seed, version in enumerate(("1.0.0", "1.1.0")):
        repository.publish(version, seed=seed)
    publishing.revoke("tiny-motion@1.0.0", repository.folder, repository.keys, datetime.now(UTC))
    standing = {"tiny-motion@1.1.0": True}  # never seen by this server before it was revoked
    RepositoryWatch(config, catalog).look()
    assert listed(catalog, database) == standing
    metadata = repository.folder / "metadata"
    newest = metadata / "4.releases.json"
    whole = newest.read_bytes()
    newest.unlink()
    if damage == "cut":
        newest.write_bytes(whole[:100])
    for _ in range(3):  # each as after a restart
        RepositoryWatch(config, catalog).look()
        assert listed(catalog, database) == standing
        assert any("4.releases.json is not accepted" in title for title in open_titles(database))
        meta = json.loads(newest_snapshot(metadata).read_text())["signed"]["meta"]
        assert meta["releases.json"]["version"] == 4
    newest.write_bytes(whole)
    RepositoryWatch(config, catalog).look()
    assert open_titles(database) == []


def test_a_damaged_snapshot_does_not_lower_what_older_ones_listed(
    repository: Any, config: ServerConfig, catalog: Catalog, database: Database
) -> None:
    repository.publish("1.0.0")
    publishing.revoke("tiny-motion@1.0.0", repository.folder, repository.keys, datetime.now(UTC))
    RepositoryWatch(config, catalog).look()
    repository.publish("1.1.0", seed=1)
    RepositoryWatch(config, catalog).look()
    metadata = repository.folder / "metadata"
    for damaged in (newest_snapshot(metadata), *metadata.glob("[34].releases.json")):
        damaged.write_bytes(b"{")
    for _ in range(2):
        RepositoryWatch(config, catalog).look()
        assert listed(catalog, database) == {"tiny-motion@1.1.0": True}


def newest_snapshot(metadata: Path) -> Path:
    return max(metadata.glob("*.snapshot.json"), key=lambda path: int(path.name.split(".")[0]))


def test_a_list_signed_by_another_key_is_refused_and_told(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database, tmp_path: Path
) -> None:
    repository.publish("1.0.0")
    watch.look()
    metadata = repository.folder / "metadata"
    other = tmp_path / "other"
    publishing.init_repository(other / "repository", other / "keys", datetime.now(UTC))
    forged = (other / "repository" / "metadata" / "1.releases.json").read_text()
    (metadata / "9.releases.json").write_text(forged.replace('"version": 1', '"version": 9'))
    watch.look()
    assert listed(catalog, database) == {"tiny-motion@1.0.0": True}
    assert any("9.releases.json is not accepted" in title for title in open_titles(database))
    (metadata / "9.releases.json").unlink()
    watch.look()
    assert open_titles(database) == []


def test_an_altered_list_is_refused(repository: Any, watch: RepositoryWatch) -> None:
    repository.publish("1.0.0")
    watch.look()
    metadata = repository.folder / "metadata"
    content = json.loads((metadata / "2.releases.json").read_text())
    content["signed"]["version"] = 3
    (metadata / "3.releases.json").write_text(json.dumps(content))
    watch.look()
    assert (
        json.loads(newest_snapshot(metadata).read_text())["signed"]["meta"]["releases.json"][
            "version"
        ]
        == 2
    )


def test_a_release_whose_file_is_missing_is_not_listed(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database
) -> None:
    repository.publish("1.0.0")
    for path in (repository.folder / "targets").rglob("*.features.json"):
        path.unlink()
    watch.look()
    assert listed(catalog, database) == {}
    assert any("missing" in title for title in open_titles(database))


def test_a_manifest_that_was_changed_on_disk_is_not_taken_over(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database
) -> None:
    repository.publish("1.0.0")
    manifest = next((repository.folder / "targets").rglob("*.manifest.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b"Tells", b"TELLS"))
    watch.look()
    assert listed(catalog, database) == {}
    assert any("not the file that was signed" in title for title in open_titles(database))


def test_another_root_cannot_replace_the_pinned_one(
    repository: Any, watch: RepositoryWatch, tmp_path: Path
) -> None:
    repository.publish("1.0.0")
    watch.look()
    other = tmp_path / "other"
    publishing.init_repository(other / "repository", other / "keys", datetime.now(UTC))
    for path in (other / "repository" / "metadata").iterdir():
        shutil.copy(path, repository.folder / "metadata" / path.name)
    with pytest.raises(UntrustedBundle, match="not trusted"):
        watch.look()


def test_snapshot_and_timestamp_are_renewed_before_they_expire(
    repository: Any, config: ServerConfig
) -> None:
    metadata = repository.folder / "metadata"
    now = datetime.now(UTC)
    refresher = Refresher(
        repository.folder,
        config.online_keys_dir,
        (metadata / "1.root.json").read_bytes(),
        snapshot_life=timedelta(days=7),
        timestamp_life=timedelta(days=1),
    )

    def version() -> int:
        return int(json.loads((metadata / "timestamp.json").read_text())["signed"]["version"])

    refresher.refresh(now)
    first = version()
    refresher.refresh(now + timedelta(hours=1))
    assert version() == first
    refresher.refresh(now + timedelta(hours=13))
    assert version() == first + 1


def test_missing_online_keys_are_named(
    repository: Any, watch: RepositoryWatch, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "online").unlink()
    repository.publish("1.0.0")
    watch.look()
    assert any("no key in" in title and "online" in title for title in open_titles(database))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100, b'{"signed": 1}'])
def test_random_metadata_is_one_clear_refusal(
    repository: Any, watch: RepositoryWatch, catalog: Catalog, database: Database, content: bytes
) -> None:
    repository.publish("1.0.0")
    (repository.folder / "metadata" / "7.releases.json").write_bytes(content)
    watch.look()
    assert listed(catalog, database) == {"tiny-motion@1.0.0": True}
    assert any("7.releases.json" in title for title in open_titles(database))


def test_no_repository_yet_is_no_error(watch: RepositoryWatch) -> None:
    watch.look()


def test_a_path_that_leaves_the_folder_is_refused() -> None:
    from tuf.api.metadata import DelegatedRole, TargetFile, Targets

    role = DelegatedRole("releases", ["k"], 1, True, paths=["*/*/*"])
    targets = Targets(targets={"a/../b": TargetFile(1, {"sha256": "0" * 64}, "a/../b")})
    with pytest.raises(SerinusError, match="not its role's"):
        reader._check_paths(role, targets, "1.releases.json")
