"""Keeps the list of releases fresh: checks new metadata, then signs snapshot and timestamp.

The server's two online keys say "this is the newest list", never "this may run": whatever they
list was signed by roles whose keys are elsewhere, and is verified here before it is listed.
"""

import contextlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edge_core import durable
from edge_core.errors import SerinusError, Unavailable, UntrustedBundle
from fleet_server import repository as reader

SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"

OnlineRole = TypeVar("OnlineRole", Snapshot, Timestamp)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What the repository approves now, and which newer files were not accepted."""

    targets: Targets
    releases: Targets | None
    refused: dict[str, str]
    """File name -> reason, for metadata that is newer than what is listed."""
    renewal_problem: str = ""
    """Why the list could not be signed afresh; devices accept the old one until it expires."""


class Refresher:
    """Owns ``N.snapshot.json`` and ``timestamp.json`` of one repository folder."""

    def __init__(
        self,
        folder: Path,
        online_keys: Path,
        pinned_root: bytes,
        *,
        snapshot_life: timedelta,
        timestamp_life: timedelta,
        passphrase: bytes | None = None,
    ) -> None:
        self._folder = folder
        self._metadata = folder / "metadata"
        self._online_keys = online_keys
        self._pinned_root = pinned_root
        self._snapshot_life = snapshot_life
        self._timestamp_life = timestamp_life
        self._passphrase = passphrase

    def refresh(self, now: datetime) -> Listing:
        """Verify what is new, list it, and renew what expires soon.

        Raises:
            UntrustedBundle: the root or every targets file is not trusted.
            Unavailable: a file cannot be read.
        """
        root = reader.verified_root(self._folder, self._pinned_root)
        snapshot = self._current(root, SNAPSHOT, Snapshot, self._newest_snapshot())
        least = self._least(root)
        refused: dict[str, str] = {}
        targets = self._newest(root, "targets", least.get("targets.json", 1), now, refused)
        if targets is None:
            raise UntrustedBundle(
                "the repository has no targets metadata that the root's keys signed: "
                + ("; ".join(refused.values()) or "run serinus-convert init-repository")
            )
        at_least = least.get(f"{reader.RELEASES}.json", 1)
        releases = self._newest(targets, reader.RELEASES, at_least, now, refused)
        if releases is None:
            reason = "it was listed before and is missing now; copy it into the repository again"
            refused.setdefault(f"{at_least}.{reader.RELEASES}.json", reason)
        found = {"targets.json": targets.version}
        if releases is not None:
            found[f"{reader.RELEASES}.json"] = releases.version
        try:
            # What was listed once stays listed, usable or not: without its version in the
            # snapshot, devices and this server would take an older list for the newest.
            self._renew(root, snapshot, least | found, now)
        except SerinusError as error:
            return Listing(
                targets=targets, releases=None, refused=refused, renewal_problem=str(error)
            )
        return Listing(targets=targets, releases=releases, refused=refused)

    def _newest(
        self,
        parent: Root | Targets,
        role: str,
        least: int,
        now: datetime,
        refused: dict[str, str],
    ) -> Targets | None:
        """Return the newest file of a role that is trusted and complete, none below ``least``."""
        for version in sorted(self._versions(role), reverse=True):
            if version < least:
                break
            try:
                found = reader.verified_targets(self._folder, parent, role, version, now)
                self._check_files(found)
            except SerinusError as error:
                refused[f"{version}.{role}.json"] = str(error)
            else:
                return found
        return None

    def _check_files(self, targets: Targets) -> None:
        for path, target in targets.targets.items():
            file = reader.target_file(self._folder, target)
            if not file.is_file() or file.stat().st_size != target.length:
                raise Unavailable(f"{path} is listed, but {file} is missing or cut short")

    def _renew(
        self,
        root: Root,
        snapshot: Snapshot | None,
        wanted: dict[str, int],
        now: datetime,
    ) -> None:
        have = {} if snapshot is None else {n: f.version for n, f in snapshot.meta.items()}
        if snapshot is None or wanted != have or _aged(snapshot, self._snapshot_life, now):
            snapshot = Snapshot(
                version=self._newest_snapshot() + 1,
                expires=now + self._snapshot_life,
                meta={name: MetaFile(version=version) for name, version in wanted.items()},
            )
            self._sign(root, SNAPSHOT, f"{snapshot.version}.snapshot.json", Metadata(snapshot))
        timestamp = self._current(root, TIMESTAMP, Timestamp, None)
        stale = timestamp is None or timestamp.snapshot_meta.version != snapshot.version
        if timestamp is None or stale or _aged(timestamp, self._timestamp_life, now):
            fresh = Timestamp(
                version=self._timestamp_version() + 1,
                expires=now + self._timestamp_life,
                snapshot_meta=MetaFile(version=snapshot.version),
            )
            self._sign(root, TIMESTAMP, "timestamp.json", Metadata(fresh))

    def _sign(
        self, root: Root, role: str, name: str, metadata: "Metadata[Snapshot] | Metadata[Timestamp]"
    ) -> None:
        metadata.sign(self._signer(root, role))
        durable.write_bytes(self._metadata / name, metadata.to_bytes())

    def _signer(self, root: Root, role: str) -> CryptoSigner:
        """Find the online key that the root names for a role, whatever its file is called."""
        keys = [root.keys[keyid] for keyid in root.roles[role].keyids]
        allowed = {str(key.keyval["public"]): key for key in keys if isinstance(key, SSlibKey)}
        locked = []
        for path in sorted(self._online_keys.glob("*")):
            try:
                private = self._private(path)
                public = CryptoSigner(private).public_key  # refuses kinds that it does not know
            except TypeError:
                locked.append(path.name)
                continue
            except (ValueError, OSError, UnsupportedAlgorithm, SigningError):
                continue  # a public key, or not a key at all
            key = allowed.get(str(public.keyval["public"]))
            if key is not None:
                return CryptoSigner(private, key)
        raise Unavailable(
            f"no key in {self._online_keys} is the repository's {role} key: copy the keys that the "
            f"root names for snapshot and timestamp there{_said_of(locked)}"
        )

    def _private(self, path: Path) -> Any:
        """Read a private key; raise ``TypeError`` where it does not open with the passphrase."""
        data = path.read_bytes()
        try:
            return load_pem_private_key(data, password=None)
        except TypeError:
            if self._passphrase is None:
                raise
        try:
            return load_pem_private_key(data, password=self._passphrase)
        except ValueError as error:
            raise TypeError(str(error)) from error

    def _current(
        self, root: Root, role: str, kind: type[OnlineRole], version: int | None
    ) -> OnlineRole | None:
        """Return one of our signed files; none where it is absent or not valid."""
        name = f"{role}.json" if version is None else f"{version}.{role}.json"
        if not (self._metadata / name).exists():
            return None
        try:
            metadata = reader.parse(reader.read_metadata(self._metadata / name), kind, name)
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (SerinusError, RepositoryError):
            return None
        return metadata.signed

    def _least(self, root: Root) -> dict[str, int]:
        """File name -> newest version that any snapshot with a valid signature ever listed."""
        least: dict[str, int] = {}
        for version in self._versions(SNAPSHOT):
            snapshot = self._current(root, SNAPSHOT, Snapshot, version)
            for name, entry in snapshot.meta.items() if snapshot is not None else ():
                least[name] = max(entry.version, least.get(name, 0))
        return least

    def _newest_snapshot(self) -> int:
        return max(self._versions(SNAPSHOT), default=0)

    def _timestamp_version(self) -> int:
        """Version of our last timestamp, also where its key has been replaced since."""
        path = self._metadata / "timestamp.json"
        if not path.exists():
            return 0
        try:
            return reader.parse(reader.read_metadata(path), Timestamp, path.name).signed.version
        except SerinusError:
            return 0

    def _versions(self, role: str) -> list[int]:
        return versions_in(self._folder, role)


def versions_in(folder: Path, role: str) -> list[int]:
    """Versions of a role by the names of its files; nothing is verified."""
    pattern = re.compile(rf"^(\d{{1,9}})\.{re.escape(role)}\.json$")
    names = (path.name for path in (folder / "metadata").glob(f"*.{role}.json"))
    return [int(match[1]) for match in map(pattern.match, names) if match]


def _said_of(locked: list[str]) -> str:
    """What is said of keys that did not open."""
    if not locked:
        return ""
    return (
        f"; {', '.join(locked[:3])} did not open: set repository.online_passphrase_file to a file "
        "with their passphrase"
    )


def pin_root(folder: Path, pinned: Path, given: Path | None) -> bytes | None:
    """Bytes of the root to trust: the operator's, the one pinned before, or the first one seen.

    None while there is no repository yet.
    """
    if given is not None:
        return reader.read_metadata(given)
    if pinned.exists():
        return reader.read_metadata(pinned)
    first = folder / "metadata" / "1.root.json"
    if not first.exists():
        return None
    data = reader.read_metadata(first)
    reader.verified_root(folder, data)
    durable.write_bytes(pinned, data)
    return data


def state_of(folder: Path, online_keys: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of metadata and keys: changes when there is something to read.

    Empty where there is no metadata.
    """
    metadata = _files(folder / "metadata", "*.json")
    return (*metadata, *_files(online_keys, "*")) if metadata else ()


def _files(folder: Path, pattern: str) -> tuple[tuple[str, int, int], ...]:
    found = []
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(OSError):  # taken away meanwhile, or a link to nothing
            status = path.stat()
            found.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _aged(signed: Snapshot | Timestamp, life: timedelta, now: datetime) -> bool:
    """Whether less than half of its life is left."""
    return signed.expires - now.astimezone(UTC) < life / 2
