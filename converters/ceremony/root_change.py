"""The next root metadata from the present one and what shall change. Pure.

TUF specification 1.0, sections 5.3 (a root is signed by the one before it and by itself) and 6.1.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import Role, Root

from converters.ceremony import public_key
from converters.release_list import ROOT_THRESHOLD
from edge_core.errors import InvalidConfiguration

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
ONLINE: Final = frozenset({"snapshot", "timestamp"})
"""One key may have both: they are on the same machine."""
MOST_KEYS: Final = 32
LONGEST: Final = timedelta(days=3 * 366)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for; roles are those of ``ROLES``."""

    expires: datetime
    add: Sequence[tuple[str, Key]] = ()
    remove: Sequence[tuple[str, str]] = ()
    """Role and holder, or the beginning of a fingerprint."""
    replace: Sequence[tuple[str, Key]] = ()
    """These are all keys that the role has then."""
    thresholds: Mapping[str, int] = {}


def following(current: Root | None, change: Change, now: datetime) -> Root:
    """The root metadata to propose, checked.

    Raises:
        InvalidConfiguration: a key is added twice or removed without being there, or the result
            is not one that :func:`check` allows.
    """
    roles = {role: _keys(current, role) for role in ROLES}
    for role in {role for role, _ in change.replace}:
        roles[role] = [key for of, key in change.replace if of == role]
    for role, who in change.remove:
        roles[role] = without(roles[role], role, who)
    for role, key in change.add:
        roles[role] = [*roles[role], key]
    thresholds = {role: _threshold(current, role, change) for role in ROLES}
    _check_counts(roles, thresholds)
    root = Root(
        version=1 if current is None else current.version + 1,
        expires=change.expires,
        keys={key.keyid: key for keys in roles.values() for key in keys},
        roles={role: Role([key.keyid for key in roles[role]], thresholds[role]) for role in ROLES},
        consistent_snapshot=True,
    )
    check(root, now)
    return root


def without(keys: Sequence[Key], role: str, who: str) -> list[Key]:
    """Keys but the one that a holder's name or the beginning of a fingerprint names."""
    wanted = who.replace(" ", "").lower()
    found = [
        key
        for key in keys
        if public_key.holder_of(key) == who or (len(wanted) >= 8 and key.keyid.startswith(wanted))
    ]
    if len(found) != 1:
        have = "; ".join(public_key.told(key) for key in keys) or "nobody"
        raise InvalidConfiguration(
            f"{len(found)} keys of {role} are {who[:80]}'s: name one by its holder or by 8 digits "
            f"of its fingerprint; it has {have}"
        )
    return [key for key in keys if key.keyid != found[0].keyid]


def check(root: Root, now: datetime) -> None:
    """Refuse root metadata that no ceremony may end with, whoever wrote it.

    Raises:
        InvalidConfiguration: a role without keys, with a key twice, or with a threshold that its
            keys cannot reach; a root that one person can replace; one key in two roles; an end
            that is past or too far.
    """
    if set(root.roles) != set(ROLES) or not root.consistent_snapshot:
        raise InvalidConfiguration(
            f"root metadata here has the roles {', '.join(ROLES)} and consistent snapshots"
        )
    roles = {role: _keys(root, role) for role in ROLES}
    for key in root.keys.values():
        check_canonical(key)
    _check_counts(roles, {role: root.roles[role].threshold for role in ROLES})
    check_end(root.expires, now)


def check_end(expires: datetime, now: datetime) -> None:
    """Refuse metadata that is over, or that would be believed for too long."""
    if expires <= now:
        raise InvalidConfiguration(
            f"it would have expired on {expires:%Y-%m-%d}, so no device would believe it: propose "
            "it again with a later end"
        )
    if expires - now > LONGEST:
        raise InvalidConfiguration(
            f"it would end on {expires:%Y-%m-%d}; the longest life is {LONGEST.days} days"
        )


def _keys(root: Root | None, role: str) -> list[Key]:
    if root is None:
        return []
    missing = [keyid for keyid in root.roles[role].keyids if keyid not in root.keys]
    if missing:
        raise InvalidConfiguration(f"{role} names the key {missing[0][:16]}, which is not there")
    return [root.keys[keyid] for keyid in root.roles[role].keyids]


def _threshold(current: Root | None, role: str, change: Change) -> int:
    first = ROOT_THRESHOLD if role == "root" else 1
    before = first if current is None else current.roles[role].threshold
    return change.thresholds.get(role, before)


def check_canonical(key: Key) -> None:
    """One key under two names would count as two people."""
    try:
        known = public_key.canonical(key)
    except ValueError as error:
        raise InvalidConfiguration(f"the key {key.keyid[:16]} is none: {error}") from error
    if known.keyid != key.keyid:
        raise InvalidConfiguration(
            f"the key of {public_key.holder_of(key)} stands under another fingerprint than its own"
        )


def _check_counts(roles: Mapping[str, Sequence[Key]], thresholds: Mapping[str, int]) -> None:
    used: dict[str, str] = {}
    for role, keys in roles.items():
        _check_role(role, keys, thresholds[role])
        for key in keys:
            other = used.setdefault(key.keyid, role)
            if other != role and not {other, role} <= ONLINE:
                raise InvalidConfiguration(
                    f"the key {public_key.told(key)} is to be {other} and {role}: make a key for "
                    "each role, so that who steals one has one"
                )


def _check_role(role: str, keys: Sequence[Key], threshold: int) -> None:
    if not keys:
        raise InvalidConfiguration(
            f"{role} has no key: add one with --add {role}=NAME{public_key.SUFFIX}"
        )
    if len(keys) > MOST_KEYS:
        raise InvalidConfiguration(f"{role} has {len(keys)} keys; the limit is {MOST_KEYS}")
    for number, key in enumerate(keys):
        if key.keyid in {earlier.keyid for earlier in keys[:number]}:
            raise InvalidConfiguration(f"{role} has the key {public_key.told(key)} twice")
    if not 1 <= threshold <= len(keys):
        raise InvalidConfiguration(
            f"{role} asks for {threshold} signatures and has {len(keys)} keys: it could never be "
            f"signed; add keys, or set --threshold {role}=N"
        )
    if role == "root" and threshold < ROOT_THRESHOLD:
        raise InvalidConfiguration(
            f"root asks for {threshold} signature: one stolen key could replace everybody; the "
            f"least is {ROOT_THRESHOLD}"
        )
