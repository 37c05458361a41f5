"""Signs the next list of releases and puts it into the repository: one writer at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from converters import trusted_list
from converters.keys import opening
from converters.keys.access import KeyAccess
from converters.release_list import RELEASES
from converters.trusted_list import PINNED_ROOT
from edge_core import durable
from edge_core.errors import InvalidConfiguration, UntrustedBundle


class ReleaseKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key that approves releases."""

    place: str = ""
    """Path or ``pkcs11:`` URI; ``releases.pem`` beside the pinned root by default."""
    access: KeyAccess = KeyAccess()
    opened: Signer | None = None
    """The key itself, where it was opened before."""

    def open_in(self, keys: Path) -> "ReleaseKey":
        """The same with its key open, for what signs more than once."""
        signer = opening.signer(self.place_in(keys), self.access)
        return ReleaseKey(place=self.place, access=self.access, opened=signer)

    def place_in(self, keys: Path) -> str:
        """Where it is, by default in a folder of keys."""
        return self.place or str(keys / f"{RELEASES}.pem")


IN_KEYS = ReleaseKey()


class ListWriter:
    """The opened releases key and the repository that it writes to.

    Raises:
        InvalidConfiguration: there is no repository, or the key does not open.
    """

    def __init__(self, repository: Path, keys: Path, key: ReleaseKey) -> None:
        if not (repository / "metadata").is_dir():
            raise _no_repository(repository)
        self._repository = repository
        self._pinned = keys / PINNED_ROOT
        self._place = key.place_in(keys)
        self._signer: Signer = key.opened or opening.signer(self._place, key.access)

    def delegation(self, now: datetime) -> Targets:
        """Who may approve releases now; refuse what no device believes any more.

        Raises:
            UntrustedBundle: root or targets metadata is not trusted, or has expired.
        """
        root = trusted_list.root(self._repository, self._pinned)
        found = trusted_list.targets_of(root, self._repository)
        for signed, fix in ((root, "root propose"), (found, "delegation propose")):
            _check_in_force(signed, fix, now)
        return found

    def write(self, releases: Targets, now: datetime) -> None:
        """Sign a list and put it beside the older ones.

        Raises:
            UntrustedBundle: the key is not the one that approves releases, or the delegation has
                expired.
        """
        data = Metadata(releases)
        data.sign(self._signer)
        try:
            self.delegation(now).verify_delegate(RELEASES, data.signed_bytes, data.signatures)
        except RepositoryError as error:
            raise UntrustedBundle(
                f"{self._place} is not the key that {self._repository} lets approve releases"
            ) from error
        name = f"{releases.version}.{RELEASES}.json"
        durable.write_bytes(self._repository / "metadata" / name, data.to_bytes())


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """One at a time who writes metadata that people sign."""
    try:
        descriptor = os.open(repository / "metadata", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _no_repository(repository) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _no_repository(repository: Path) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"no release repository at {repository}: make one with serinus-convert init-repository"
    )


def _check_in_force(signed: Root | Targets, fix: str, now: datetime) -> None:
    if signed.is_expired(now):
        raise UntrustedBundle(
            f"the {signed.type} metadata expired on {signed.expires:%Y-%m-%d}, so devices believe "
            f"no list: make its next version with serinus-convert {fix}"
        )
