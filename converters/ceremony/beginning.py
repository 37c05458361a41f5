"""From a root that people have signed to an empty repository, with the team's keys at hand."""

from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata, Root

from converters import release_list, renewal
from converters.ceremony import delegation_change, enacting, proposal, public_key
from converters.keys import opening
from converters.list_writer import ReleaseKey
from converters.release_list import RELEASES
from converters.trusted_list import PINNED_ROOT
from edge_core import durable
from edge_core.errors import InvalidConfiguration

TARGETS_KEY = "targets.pem"


def begin(repository: Path, keys: Path, root: Path, now: datetime, key: ReleaseKey) -> None:
    """Publish the first root, the first delegation and an empty list of releases.

    ``key`` opens the targets key as well. May be run again where it broke off. The server signs
    the rest when it sees the folder.

    Raises:
        CeremonyRefused: too few have signed the root.
        InvalidConfiguration: a key is missing or does not open, or ``keys`` pins another root.
    """
    metadata = proposal.read(root, Root)
    moment = now.replace(microsecond=0)
    delegation = Metadata(
        delegation_change.following(
            metadata.signed,
            None,
            1,
            delegation_change.Change(
                expires=moment + release_list.TARGETS_LIFE,
                add=[public_key.read(keys / f"{RELEASES}{public_key.SUFFIX}")],
            ),
            moment,
        )
    )
    signer = opening.signer(keys / TARGETS_KEY, key.access)
    voters = enacting.delegation_voters(metadata.signed)
    proposal.add_signature(delegation, signer.sign(delegation.signed_bytes), voters)
    _pin(keys / PINNED_ROOT, metadata)
    enacting.publish_root(repository, None, metadata, moment)
    if not (repository / "metadata" / "1.targets.json").exists():
        enacting.publish_delegation(repository, keys / PINNED_ROOT, delegation, moment)
    renewal.renew(repository, keys, moment, key, within=release_list.RELEASES_LIFE / 2)


def _pin(path: Path, metadata: Metadata[Root]) -> None:
    if path.exists() and proposal.fingerprint(proposal.read(path, Root)) != proposal.fingerprint(
        metadata
    ):
        raise InvalidConfiguration(f"{path} is another root: name another folder with --keys")
    durable.write_bytes(path, metadata.to_bytes())
