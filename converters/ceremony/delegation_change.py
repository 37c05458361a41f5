"""The next targets metadata: who may approve releases. It lists nothing itself. Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Root, Targets

from converters import release_list
from converters.ceremony import public_key, root_change
from converters.release_list import RELEASES
from edge_core.errors import InvalidConfiguration


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for."""

    expires: datetime
    add: Sequence[Key] = ()
    remove: Sequence[str] = ()
    """Holders, or beginnings of fingerprints."""
    replace: Sequence[Key] = ()
    """These are all keys that may approve then."""


def following(
    root: Root, current: Targets | None, version: int, change: Change, now: datetime
) -> Targets:
    """The targets metadata to propose, checked against the root that it stands under.

    Raises:
        InvalidConfiguration: a key is there twice, belongs to another role, or nobody is left.
    """
    keys = list(change.replace) or ([] if current is None else keys_of(current))
    for who in change.remove:
        keys = root_change.without(keys, RELEASES, who)
    keys.extend(change.add)
    if len({key.keyid for key in keys}) != len(keys):
        raise InvalidConfiguration("a key is to approve releases twice: name each once")
    proposed = release_list.delegating(keys, version, change.expires)
    check(root, proposed, now)
    return proposed


def check(root: Root, targets: Targets, now: datetime) -> None:
    """Refuse targets metadata that is more, or less, than the delegation of ``releases``.

    Raises:
        InvalidConfiguration: it lists files itself, delegates otherwise, or to a key of the root.
    """
    if targets.targets or not _delegates_only_releases(targets):
        raise InvalidConfiguration(
            f"targets metadata here lists nothing, and lets one signature of {RELEASES} approve "
            "bundles: this is another; do not sign it"
        )
    keys = keys_of(targets)
    if not 1 <= len(keys) <= root_change.MOST_KEYS:
        raise InvalidConfiguration(
            f"{RELEASES} has {len(keys)} keys; it needs 1 to {root_change.MOST_KEYS}"
        )
    for key in keys:
        root_change.check_canonical(key)
    check_apart(root, targets)
    root_change.check_end(targets.expires, now)


def check_apart(root: Root, targets: Targets) -> None:
    """Refuse a key that approves releases and has a role in the root as well.

    Raises:
        InvalidConfiguration: there is one.
    """
    for key in keys_of(targets):
        if key.keyid in root.keys:
            raise InvalidConfiguration(
                f"the key {public_key.told(key)} is to have a role in the root and to approve "
                "releases: make one of its own for each"
            )


def keys_of(targets: Targets) -> list[Key]:
    """Keys that may approve releases."""
    delegations = targets.delegations
    role = _role(delegations)
    if delegations is None or role is None:
        return []
    return [delegations.keys[keyid] for keyid in role.keyids if keyid in delegations.keys]


def _role(delegations: Delegations | None) -> DelegatedRole | None:
    return None if delegations is None else (delegations.roles or {}).get(RELEASES)


def _delegates_only_releases(targets: Targets) -> bool:
    delegations = targets.delegations
    role = _role(delegations)
    if delegations is None or role is None or list(delegations.roles or {}) != [RELEASES]:
        return False
    same = release_list.delegating([], 1, targets.expires).delegations
    wanted = _role(same)
    assert wanted is not None
    return (
        role.threshold == 1
        and role.terminating
        and role.paths == wanted.paths
        and role.path_hash_prefixes is None
        and set(role.keyids) == set(delegations.keys)
    )
