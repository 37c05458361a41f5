"""Approves finished bundles: writes their bytes and the next signed list of releases.

Snapshot and timestamp are the server's: after ``init_repository`` nothing here touches them.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from converters import release_list, trusted_list
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


def init_repository(repository: Path, keys: Path, now: datetime) -> None:
    """Make the keys and the first metadata of an empty repository.

    Raises:
        InvalidConfiguration: there are keys or a repository already.
    """
    metadata = repository / "metadata"
    taken = [path for path in (*map(keys.joinpath, _key_files()), metadata) if path.exists()]
    if taken:
        raise InvalidConfiguration(
            f"{taken[0]} exists already: choose an empty folder, nothing is overwritten"
        )
    signers = {name: CryptoSigner.generate_ed25519() for name in OFFLINE_KEYS + ONLINE_KEYS}
    files = _first_metadata(signers, now)
    _write_keys(keys, signers)
    durable.write_bytes(keys / PINNED_ROOT, files[PINNED_ROOT])
    (repository / "targets").mkdir(parents=True, exist_ok=True)
    metadata.mkdir()
    for name, data in files.items():
        durable.write_bytes(metadata / name, data)


def _first_metadata(signers: dict[str, CryptoSigner], now: datetime) -> dict[str, bytes]:
    """Files of an empty repository: name -> signed bytes."""
    roots = [signers[name] for name in ROOT_KEYS]
    others = {name: signers[name].public_key for name in ("targets", *ONLINE_KEYS)}
    root = release_list.first_root([signer.public_key for signer in roots], others, now)
    root_bytes = _signed(Metadata(root), *roots)
    targets = release_list.first_targets(signers[RELEASES].public_key, now)
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


def publish(bundle: Path, repository: Path, keys: Path, now: datetime) -> ReleaseRef:
    """List a bundle's folder as approved; publishing the same bytes again changes nothing.

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
    with _locked(repository):
        current = trusted_list.releases(repository, keys / PINNED_ROOT)
        _check_immutable(repository, ref)
        if release_list.listed_releases(current).get(ref.name) == ref.digest:
            return ref
        for path, data in files.items():
            entry = entries[f"{release_list.place(ref.model, ref.version)}/{path}"]
            _write_target(repository, entry, data)
        _write_releases(repository, keys, release_list.with_release(current, entries, now))
    return ref


def revoke(name: str, repository: Path, keys: Path, now: datetime) -> None:
    """Take a release off the list; its files stay, so that the version is never used again.

    Raises:
        ReleaseNotApproved: the release is not listed.
    """
    with _locked(repository):
        current = trusted_list.releases(repository, keys / PINNED_ROOT)
        following = release_list.without_release(current, name, now)
        _write_releases(repository, keys, following)


def _key_files() -> list[str]:
    return [f"{name}.pem" for name in OFFLINE_KEYS] + [f"{ONLINE}/{n}.pem" for n in ONLINE_KEYS]


def _write_keys(keys: Path, signers: dict[str, CryptoSigner]) -> None:
    """Offline keys into ``keys``, the server's two into a folder of their own, all 0600."""
    for folder, names in ((keys, OFFLINE_KEYS), (keys / ONLINE, ONLINE_KEYS)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            durable.write_bytes(folder / f"{name}.pem", signers[name].private_bytes, mode=0o600)


def _signer(path: Path) -> CryptoSigner:
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
        return CryptoSigner(private)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the key {path}: {error.strerror}; make keys and repository with "
            "serinus-convert init-repository"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"{path} is not an unencrypted private key: {error}") from error


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


@contextlib.contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One publisher at a time."""
    try:
        descriptor = os.open(repository / "metadata", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidConfiguration(
            f"no release repository at {repository}: make one with serinus-convert init-repository"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_target(repository: Path, entry: TargetFile, data: bytes) -> None:
    path = repository / "targets" / entry.get_prefixed_paths()[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, data)


def _write_releases(repository: Path, keys: Path, releases: Targets) -> None:
    metadata = repository / "metadata"
    targets = trusted_list.targets(repository, keys / PINNED_ROOT)
    signer = _signer(keys / f"{RELEASES}.pem")
    data = Metadata(releases)
    data.sign(signer)
    try:
        targets.verify_delegate(RELEASES, data.signed_bytes, data.signatures)
    except RepositoryError as error:
        raise UntrustedBundle(
            f"{keys / f'{RELEASES}.pem'} is not the key that {repository} lets approve releases"
        ) from error
    durable.write_bytes(metadata / f"{releases.version}.{RELEASES}.json", data.to_bytes())
