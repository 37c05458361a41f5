"""Puts what enough people signed into the repository; devices and server follow from there."""

from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from converters import list_writer, trusted_list
from converters.ceremony import delegation_change, ground, proposal, root_change
from converters.ceremony.ground import Ground
from converters.ceremony.proposal import Voice
from converters.refusal import CeremonyRefused
from edge_core import durable
from edge_core.errors import InvalidConfiguration, SerinusError


def root_voters(before: Root | None, after: Root) -> dict[str, Key]:
    """Keys with a say in root metadata: of the root before it and of itself."""
    found = {} if before is None else _keys(before, Root.type)
    return {**_keys(after, Root.type), **found}


def root_voices(before: Root | None, metadata: Metadata[Root]) -> list[Voice]:
    """Who has signed, by the root before it and by itself."""
    after = metadata.signed
    rules = [] if before is None else [(f"by version {before.version}", before)]
    return proposal.voices(metadata, [*rules, (f"by version {after.version}", after)])


def delegation_voters(root: Root) -> dict[str, Key]:
    """Keys that may sign targets metadata."""
    return _keys(root, Targets.type)


def delegation_voices(root: Root, metadata: Metadata[Targets]) -> list[Voice]:
    """Who has signed, by the root."""
    return proposal.voices(metadata, [(f"by root version {root.version}", root)])


def check_root(standing: Ground, metadata: Metadata[Root], now: datetime) -> None:
    """Refuse root metadata that must not be signed, whoever asks for it.

    Raises:
        CeremonyRefused: its version does not follow, or a signature is not for it.
        InvalidConfiguration: see :func:`converters.ceremony.root_change.check`.
    """
    before, after = standing.root, metadata.signed
    proposal.check_next(Root.type, after.version, 0 if before is None else before.version)
    root_change.check(after, now)
    if standing.targets is not None:
        delegation_change.check_apart(after, standing.targets)
    proposal.check_signatures(metadata, root_voters(before, after))


def check_delegation(
    root: Root, current_version: int, metadata: Metadata[Targets], now: datetime
) -> None:
    """Refuse targets metadata that must not be signed; raises as :func:`check_root`."""
    proposal.check_next(Targets.type, metadata.signed.version, current_version)
    delegation_change.check(root, metadata.signed, now)
    proposal.check_signatures(metadata, delegation_voters(root))


def publish_root(
    repository: Path,
    trusted: Path | None,
    metadata: Metadata[Root],
    now: datetime,
    delegation: Metadata[Targets] | None = None,
) -> bool:
    """Write ``N.root.json``; False where exactly that stands there already.

    ``delegation``: the next targets metadata, published in the same breath, where the root
    replaces the targets key.

    Raises:
        CeremonyRefused: signatures are missing, or another version would have to follow.
    """
    if metadata.signed.version == 1 and not (repository / "metadata").exists():
        _check_enough_root(Ground(root=None), metadata, now)
        for folder in ("metadata", "targets"):
            (repository / folder).mkdir(parents=True, exist_ok=True)
    with list_writer.locked(repository):
        standing = ground.of_repository(repository, trusted)
        fresh = not _published(repository, metadata)
        if fresh:
            _check_enough_root(standing, metadata, now)
        if delegation is not None and not _published(repository, delegation):
            root = metadata.signed if fresh else standing.need_root()
            _check_enough_delegation(root, standing, delegation, now)
        # Whatever is cut off between these, the same command goes on.
        if fresh:
            _write(repository, metadata)
            durable.write_bytes(repository / "metadata" / "root.json", metadata.to_bytes())
        if delegation is not None:
            _write(repository, delegation)
        return fresh


def publish_delegation(
    repository: Path, trusted: Path | None, metadata: Metadata[Targets], now: datetime
) -> bool:
    """Write ``N.targets.json``; False where exactly that stands there already.

    Raises:
        CeremonyRefused: signatures are missing, or another version would have to follow.
    """
    with list_writer.locked(repository):
        standing = ground.of_repository(repository, trusted)
        if _published(repository, metadata):
            return False
        _check_enough_delegation(standing.need_root(), standing, metadata, now)
        _write(repository, metadata)
        return True


def list_stands(repository: Path, trusted: Path | None) -> bool:
    """Whether the newest list of releases is signed by a key that may approve them."""
    root = ground.of_repository(repository, trusted).need_root()
    try:
        targets = trusted_list.targets_of(root, repository)
        trusted_list.releases_of(targets, repository)
    except SerinusError:
        return False
    return True


def _check_enough_delegation(
    root: Root, standing: Ground, metadata: Metadata[Targets], now: datetime
) -> None:
    check_delegation(root, standing.targets_version, metadata, now)
    proposal.check_enough(delegation_voices(root, metadata))


def _check_enough_root(standing: Ground, metadata: Metadata[Root], now: datetime) -> None:
    check_root(standing, metadata, now)
    proposal.check_enough(root_voices(standing.root, metadata))


def _path(repository: Path, metadata: "Metadata[Root] | Metadata[Targets]") -> Path:
    signed = metadata.signed
    return repository / "metadata" / f"{signed.version}.{signed.type}.json"


def _published(repository: Path, metadata: "Metadata[Root] | Metadata[Targets]") -> bool:
    path = _path(repository, metadata)
    if not path.exists():
        return False
    there: Metadata[Root] | Metadata[Targets]
    if isinstance(metadata.signed, Root):
        there = proposal.read(path, Root)
    else:
        there = proposal.read(path, Targets)
    if proposal.fingerprint(there) != proposal.fingerprint(metadata):
        raise CeremonyRefused(
            f"{path} is there already and says something else: what was published stays; propose "
            "the next version"
        )
    return True


def _write(repository: Path, metadata: "Metadata[Root] | Metadata[Targets]") -> None:
    durable.write_bytes(_path(repository, metadata), metadata.to_bytes())


def _keys(root: Root, role: str) -> dict[str, Key]:
    missing = [keyid for keyid in root.roles[role].keyids if keyid not in root.keys]
    if missing:
        raise InvalidConfiguration(f"{role} names the key {missing[0][:16]}, which is not there")
    return {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}
