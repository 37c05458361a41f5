"""The release repository as values: TUF roles, delegations and targets. No keys, no files.

Layout: ``docs/decisions/0005-tuf-layout.md``; format: the TUF specification 1.0.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_core.bundle.manifest import MANIFEST, PROVENANCE, SIGNATURE, Manifest
from edge_core.errors import ReleaseNotApproved

RELEASES = "releases"
RELEASE_PATHS = ["*/*/*", "*/*/*/*", "*/*/*/*/*"]
RELEASE_MARK = {"serinus": {"kind": "release"}}
ROOT_THRESHOLD = 2
ROOT_LIFE = timedelta(days=365)
TARGETS_LIFE = timedelta(days=365)
RELEASES_LIFE = timedelta(days=90)
SNAPSHOT_LIFE = timedelta(days=7)
TIMESTAMP_LIFE = timedelta(days=1)


def first_root(roots: Sequence[Key], others: Mapping[str, Key], now: datetime) -> Root:
    """Root metadata: ``ROOT_THRESHOLD`` of ``roots`` may replace any role in ``others``."""
    root = Root(expires=now + ROOT_LIFE, consistent_snapshot=True)
    for key in roots:
        root.add_key(key, Root.type)
    root.roles[Root.type].threshold = ROOT_THRESHOLD
    for role, key in others.items():
        root.add_key(key, role)
    return root


def first_targets(releases: Key, now: datetime) -> Targets:
    """Targets metadata that lists nothing itself and delegates all bundles to ``releases``."""
    return delegating([releases], 1, now + TARGETS_LIFE)


def delegating(keys: Sequence[Key], version: int, expires: datetime) -> Targets:
    """Targets metadata by which one signature of any of ``keys`` approves bundles."""
    role = DelegatedRole(
        name=RELEASES,
        keyids=[key.keyid for key in keys],
        threshold=1,
        terminating=True,
        paths=list(RELEASE_PATHS),
    )
    delegations = Delegations(keys={key.keyid: key for key in keys}, roles={RELEASES: role})
    return Targets(version=version, expires=expires, delegations=delegations)


def first_releases(now: datetime) -> Targets:
    """The empty list of releases."""
    return Targets(expires=now + RELEASES_LIFE)


def first_snapshot(now: datetime) -> Snapshot:
    """Snapshot of the first targets and releases."""
    meta = {"targets.json": MetaFile(1), f"{RELEASES}.json": MetaFile(1)}
    return Snapshot(expires=now + SNAPSHOT_LIFE, meta=meta)


def first_timestamp(now: datetime) -> Timestamp:
    """Timestamp of the first snapshot."""
    return Timestamp(expires=now + TIMESTAMP_LIFE, snapshot_meta=MetaFile(1))


def place(model: str, version: str) -> str:
    """Folder of one release among the targets."""
    return f"{model}/{version}"


def release_targets(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, TargetFile]:
    """Target entries of one bundle: bundle path -> bytes, manifest and signature included."""
    folder = place(manifest.model, manifest.version)
    entries = {}
    for path, data in files.items():
        entry = TargetFile.from_data(f"{folder}/{path}", data, ["sha256"])
        if path == MANIFEST:
            entry.unrecognized_fields["custom"] = RELEASE_MARK
        entries[entry.path] = entry
    return entries


def bundle_paths(manifest: Manifest, *, attested: bool) -> list[str]:
    """Every file of a published bundle; ``attested``: whether it has its provenance."""
    signed = [MANIFEST, SIGNATURE, PROVENANCE] if attested else [MANIFEST, SIGNATURE]
    return [*(entry.path for entry in manifest.files), *signed]


def with_release(current: Targets, entries: Mapping[str, TargetFile], now: datetime) -> Targets:
    """Return the next list, one release longer."""
    return _next({**current.targets, **entries}, current, now)


def without_release(current: Targets, name: str, now: datetime) -> Targets:
    """Return the next list, without one release.

    Raises:
        ReleaseNotApproved: the release is not listed.
    """
    folder = place(*name.split("@", 1)) + "/" if "@" in name else "?"
    kept = {path: file for path, file in current.targets.items() if not path.startswith(folder)}
    if len(kept) == len(current.targets):
        listed = ", ".join(listed_releases(current)) or "none"
        raise ReleaseNotApproved(f"{name} is not listed; listed are: {listed}")
    return _next(kept, current, now)


def renewed(current: Targets, version: int, now: datetime) -> Targets:
    """The same releases in a list of a given version that begins its life now."""
    return Targets(version=version, expires=now + RELEASES_LIFE, targets=dict(current.targets))


def listed_releases(current: Targets) -> dict[str, str]:
    """``model@version`` -> sha256 of the manifest, of every release that is listed."""
    found = {}
    for path, target in current.targets.items():
        if target.custom == RELEASE_MARK:
            model, version, _ = path.split("/", 2)
            found[f"{model}@{version}"] = target.hashes["sha256"]
    return dict(sorted(found.items()))


def _next(targets: dict[str, TargetFile], current: Targets, now: datetime) -> Targets:
    ordered = dict(sorted(targets.items()))
    return Targets(version=current.version + 1, expires=now + RELEASES_LIFE, targets=ordered)
