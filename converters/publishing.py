"""Approves finished bundles: writes their bytes and the next signed list of releases.

Snapshot and timestamp are the server's: after ``init_repository`` nothing here touches them.
"""

from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from converters import list_writer, release_list, trusted_list
from converters.ceremony import public_key
from converters.keys import key_file
from converters.list_writer import IN_KEYS, ListWriter, ReleaseKey
from converters.refusal import RefusedByGate
from converters.release_list import RELEASES
from converters.signing import PUBLIC_KEY
from converters.trusted_list import PINNED_ROOT
from edge_core import durable
from edge_core.bundle import folder as bundle_folder
from edge_core.bundle import trust
from edge_core.bundle.manifest import MANIFEST, PROVENANCE, SIGNATURE, Manifest
from edge_core.bundle.signature import load_public_key
from edge_core.errors import InvalidBundle, InvalidConfiguration, UntrustedBundle
from edge_core.release import ReleaseRef

AnyMetadata = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]

ROOT_KEYS = ["root-1", "root-2", "root-3"]
OFFLINE_KEYS = [*ROOT_KEYS, "targets", RELEASES]
ONLINE_KEYS = ["snapshot", "timestamp"]
ONLINE = "online"


def init_repository(
    repository: Path, keys: Path, now: datetime, passphrase: bytes | None = None
) -> None:
    """Make the keys and the first metadata of an empty repository, all on one machine.

    For a first look: who has this folder has every root key. ``docs/key-ceremony.md`` says how
    people make a repository whose root keys are apart. ``passphrase`` is that of every key but
    the server's two.

    Raises:
        InvalidConfiguration: there are keys or a repository already.
    """
    check_free(repository, keys)
    metadata = repository / "metadata"
    signers = {name: key_file.new_tuf_key() for name in OFFLINE_KEYS + ONLINE_KEYS}
    files = _first_metadata(signers, now)
    _write_keys(keys, signers, passphrase)
    durable.write_bytes(keys / PINNED_ROOT, files[PINNED_ROOT])
    (repository / "targets").mkdir(parents=True, exist_ok=True)
    metadata.mkdir()
    for name, data in files.items():
        durable.write_bytes(metadata / name, data)


def check_free(repository: Path, keys: Path) -> None:
    """Raise :class:`InvalidConfiguration` where there are keys or a repository already."""
    metadata = repository / "metadata"
    taken = [path for path in (*map(keys.joinpath, _key_files()), metadata) if path.exists()]
    if taken:
        raise InvalidConfiguration(
            f"{taken[0]} exists already: choose an empty folder, nothing is overwritten"
        )


def _first_metadata(signers: dict[str, CryptoSigner], now: datetime) -> dict[str, bytes]:
    """Files of an empty repository: name -> signed bytes."""
    public = {name: public_key.held_by(key.public_key, name) for name, key in signers.items()}
    others = {name: public[name] for name in ("targets", *ONLINE_KEYS)}
    root = release_list.first_root([public[name] for name in ROOT_KEYS], others, now)
    root_bytes = _signed(Metadata(root), *(signers[name] for name in ROOT_KEYS))
    targets = release_list.first_targets(public[RELEASES], now)
    releases = release_list.first_releases(now)
    snapshot = release_list.first_snapshot(now)
    timestamp = release_list.first_timestamp(now)
    return {
        PINNED_ROOT: root_bytes,
        "root.json": root_bytes,
        "1.targets.json": _signed(Metadata(targets), signers["targets"]),
        f"1.{RELEASES}.json": _signed(Metadata(releases), signers[RELEASES]),
        "1.snapshot.json": _signed(Metadata(snapshot), signers["snapshot"]),
        "timestamp.json": _signed(Metadata(timestamp), signers["timestamp"]),
    }


def publish(
    bundle: Path, repository: Path, keys: Path, now: datetime, key: ReleaseKey = IN_KEYS
) -> ReleaseRef:
    """List a bundle's folder as approved; publishing the same bytes again changes nothing.

    ``keys`` holds the pinned root, the public statement key and, by default, the releases key.

    Raises:
        UntrustedBundle: unsigned, signed by another statement key than the one in ``keys``, or
            the repository's own metadata is not what the pinned root allows.
        InvalidBundle: files disagree with the manifest, a gate failed without a waiver, or the
            version was published before with other bytes.
    """
    manifest = bundle_folder.read(bundle)
    ref = bundle_folder.ref(bundle)
    _check_gates(manifest)
    _check_statement(bundle, keys)
    bundle_folder.check(bundle, manifest)
    paths = release_list.bundle_paths(manifest, attested=(bundle / PROVENANCE).exists())
    files = {path: trusted_list.read(bundle / path) for path in paths}
    entries = release_list.release_targets(manifest, files)
    writer = ListWriter(repository, keys, key)
    with list_writer.locked(repository):
        current = trusted_list.releases_of(writer.delegation(now), repository)
        _check_immutable(repository, ref)
        if release_list.listed_releases(current).get(ref.name) == ref.digest:
            return ref
        for path, data in files.items():
            entry = entries[f"{release_list.place(ref.model, ref.version)}/{path}"]
            _write_target(repository, entry, data)
        writer.write(release_list.with_release(current, entries, now), now)
    return ref


def revoke(
    name: str, repository: Path, keys: Path, now: datetime, key: ReleaseKey = IN_KEYS
) -> None:
    """Take a release off the list; its files stay, so that the version is never used again.

    Raises:
        ReleaseNotApproved: the release is not listed.
    """
    writer = ListWriter(repository, keys, key)
    with list_writer.locked(repository):
        current = trusted_list.releases_of(writer.delegation(now), repository)
        writer.write(release_list.without_release(current, name, now), now)


def _key_files() -> list[str]:
    return [f"{name}.pem" for name in OFFLINE_KEYS] + [f"{ONLINE}/{n}.pem" for n in ONLINE_KEYS]


def _write_keys(keys: Path, signers: dict[str, CryptoSigner], passphrase: bytes | None) -> None:
    """Offline keys into ``keys``, the server's two into a folder of their own, all 0600."""
    for name in OFFLINE_KEYS:
        key_file.write_signer(keys / f"{name}.pem", signers[name], passphrase)
    for name in ONLINE_KEYS:
        key_file.write_signer(keys / ONLINE / f"{name}.pem", signers[name], None)


def _signed(metadata: AnyMetadata, *signers: CryptoSigner) -> bytes:
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _check_gates(manifest: Manifest) -> None:
    if not manifest.gates:
        raise RefusedByGate(
            f"{manifest.model}@{manifest.version}: no gate ever judged it; build it with "
            "serinus-convert build"
        )
    for result in manifest.gates:
        if result.outcome != "passed" and not result.waived:
            where = f" ({result.slice})" if result.slice else ""
            raise RefusedByGate(
                f"{manifest.model}@{manifest.version}: gate {result.gate}{where} says "
                f"{result.outcome}; build it again with a reason to waive it, or improve it"
            )


def _check_statement(bundle: Path, keys: Path) -> None:
    if not (bundle / SIGNATURE).exists():
        raise UntrustedBundle(f"{bundle} is not signed: build it with --key STATEMENT.pem")
    public = keys / PUBLIC_KEY
    if not public.exists():
        raise InvalidConfiguration(
            f"no {public} to check the bundle's signature with: copy the public half of the "
            "statement key there; serinus-convert keygen made it"
        )
    key = load_public_key(trusted_list.read(public), str(public))
    signed = (trusted_list.read(bundle / SIGNATURE), bundle_folder.read_provenance(bundle))
    trust.accept(trusted_list.read(bundle / MANIFEST), *signed, [key])


def _check_immutable(repository: Path, ref: ReleaseRef) -> None:
    """A version that was ever published, revoked ones included, keeps its bytes for good."""
    folder = repository / "targets" / ref.model / ref.version
    others = set(folder.glob(f"*.{MANIFEST}")) - {folder / f"{ref.digest}.{MANIFEST}"}
    if others:
        raise InvalidBundle(
            f"{ref.name} was published before with other bytes; give the new build a new version"
        )


def _write_target(repository: Path, entry: TargetFile, data: bytes) -> None:
    path = repository / "targets" / entry.get_prefixed_paths()[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, data)
