"""Signs the list of releases again: before it ends, or after its key was replaced.

A list whose key was replaced is never taken over by itself: whoever stole the key may have made
the newest one. A person names the one to go on from, and each of its releases has to be whole and
signed with the statement key.
"""

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Targets

from converters import list_writer, release_list, trusted_list
from converters.list_writer import IN_KEYS, ListWriter, ReleaseKey
from converters.release_list import RELEASES
from converters.signing import PUBLIC_KEY
from converters.trusted_list import PINNED_ROOT
from edge_core.bundle import trust
from edge_core.bundle.manifest import MANIFEST, PROVENANCE, SIGNATURE
from edge_core.bundle.signature import load_public_key
from edge_core.errors import InvalidBundle, InvalidConfiguration, SerinusError, UntrustedBundle


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    version: int
    expires: datetime
    releases: dict[str, str]
    """``model@version`` -> digest, of every release that is listed."""
    written: bool
    """No where the present list lasts long enough."""


def renew(
    repository: Path,
    keys: Path,
    now: datetime,
    key: ReleaseKey = IN_KEYS,
    *,
    within: timedelta | None = None,
    take_over: int | None = None,
) -> Renewal:
    """Write the next list with the same releases and a new end.

    ``within``: only where the present one ends so soon. ``take_over``: go on from this version,
    which a key signed that was replaced since.

    Raises:
        UntrustedBundle: the newest list was signed by a key that may approve no more, and
            ``take_over`` names none; or the one it names is not what it should be.
    """
    writer = ListWriter(repository, keys, key)
    with list_writer.locked(repository):
        delegation = writer.delegation(now)
        if take_over is None:
            current = _current(repository, delegation)
        else:
            _check_replaced(repository, delegation, take_over)
            current = _taken_over(repository, keys, take_over)
        left = current.expires - now
        if take_over is None and within is not None and left > within:
            return _said(current, written=False)
        following = release_list.renewed(current, _next_version(repository), now)
        writer.write(following, now)
    return _said(following, written=True)


def _said(listed: Targets, *, written: bool) -> Renewal:
    return Renewal(
        version=listed.version,
        expires=listed.expires,
        releases=release_list.listed_releases(listed),
        written=written,
    )


def _next_version(repository: Path) -> int:
    """After every version there is, also those that nobody trusts any more."""
    return max(trusted_list.versions(repository, RELEASES), default=0) + 1


def _current(repository: Path, delegation: Targets) -> Targets:
    known = trusted_list.versions(repository, RELEASES)
    if not known:
        return Targets()  # a repository that never listed one
    try:
        return trusted_list.releases_of(delegation, repository)
    except UntrustedBundle as error:
        raise UntrustedBundle(
            f"{error}; where the releases key was replaced, look at the older lists and name the "
            f"one to go on from with --take-over VERSION: there are {_shown(known)}"
        ) from error


def _check_replaced(repository: Path, delegation: Targets, version: int) -> None:
    """Going on from an older list brings back what was revoked since: only where one has to."""
    known = trusted_list.versions(repository, RELEASES)
    if version not in known:
        raise InvalidConfiguration(
            f"there is no {version}.{RELEASES}.json: there are {_shown(known)}"
        )
    try:
        newest = trusted_list.releases_of(delegation, repository)
    except SerinusError:
        return
    raise InvalidConfiguration(
        f"list {newest.version} is signed by a key that may approve: renew it without --take-over; "
        "a release that was revoked comes back by publishing it"
    )


def _shown(versions: list[int]) -> str:
    return ", ".join(map(str, versions[-10:])) or "none"


def _taken_over(repository: Path, keys: Path, version: int) -> Targets:
    """The list that an earlier delegation allowed, every release of it whole and ours."""
    found = _once_allowed(repository, keys, version)
    key = load_public_key(trusted_list.read(keys / PUBLIC_KEY), str(keys / PUBLIC_KEY))
    for path, target in found.targets.items():
        data = trusted_list.read(repository / "targets" / target.get_prefixed_paths()[0])
        try:
            target.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise InvalidBundle(f"{path} in the repository is not what was listed") from error
    for name in release_list.listed_releases(found):
        place = release_list.place(*name.split("@", 1))
        manifest, signature = (
            _target(repository, found, f"{place}/{part}") for part in (MANIFEST, SIGNATURE)
        )
        attested = f"{place}/{PROVENANCE}"
        provenance = _target(repository, found, attested) if attested in found.targets else None
        trust.accept(manifest, signature, provenance, [key])
    return found


def _target(repository: Path, listed: Targets, path: str) -> bytes:
    target = listed.targets.get(path)
    if target is None:
        raise InvalidBundle(f"the list names no {path}: take over another one")
    return trusted_list.read(repository / "targets" / target.get_prefixed_paths()[0])


def _once_allowed(repository: Path, keys: Path, version: int) -> Targets:
    for root in reversed(trusted_list.roots(repository, keys / PINNED_ROOT)):
        for number in reversed(trusted_list.versions(repository, Targets.type)):
            try:
                parent = trusted_list.targets_of(root.signed, repository, number)
                return trusted_list.releases_of(parent, repository, version)
            except SerinusError:
                continue
    raise UntrustedBundle(f"{version}.{RELEASES}.json was never signed by a key that might")
