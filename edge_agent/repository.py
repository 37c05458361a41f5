"""Is this release approved? The TUF client (python-tuf) behind our port. Not thread-safe."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient import Updater, UpdaterConfig, Urllib3Fetcher
from urllib3.exceptions import HTTPError

from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import MANIFEST, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, FileEntry
from edge_core.errors import (
    InvalidBundle,
    InvalidConfiguration,
    ReleaseNotApproved,
    Unavailable,
    UntrustedBundle,
    quoted,
)
from edge_core.release import ReleaseRef


class _Fetcher(Urllib3Fetcher):
    """Also names what goes wrong in the middle of a stream; python-tuf lets some of it through."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from super()._fetch(url)
        except (HTTPError, OSError) as error:
            raise tuf_errors.DownloadError(f"{url}: {quoted(error)}") from error


class TufRepository:
    """Approved releases by way of TUF's metadata, starting from the root the device was given.

    Raises:
        InvalidConfiguration: that root is none, or not signed by its own keys.
    """

    def __init__(self, *, url: str, trusted_root: bytes, folder: Path) -> None:
        _check_root(trusted_root)
        self._url = url.rstrip("/")
        self._root = trusted_root
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        for path in (self._metadata, self._targets):
            path.mkdir(parents=True, exist_ok=True)
        self._updater: Updater | None = None

    def manifest(self, ref: ReleaseRef) -> bytes:
        """See :class:`edge_agent.ports.ApprovedReleases`. Refreshes the metadata first."""
        with _translated(f"{ref.name}: the release list"):
            self._updater = self._new_updater()
            self._updater.refresh()
        data = self._download(ref, MANIFEST, MAX_MANIFEST_BYTES).read_bytes()
        found = sha256_bytes(data)
        if found != ref.digest:
            raise ReleaseNotApproved(
                f"{ref.name} is approved with digest {found[:12]}, not with {ref.digest[:12]}"
            )
        return data

    def file(self, ref: ReleaseRef, entry: FileEntry, destination: Path) -> None:
        """See :class:`edge_agent.ports.ApprovedReleases`. Call :meth:`manifest` first."""
        fetched = self._download(ref, entry.path, MAX_FILE_BYTES)
        destination.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(destination)

    def clean(self) -> None:
        """Remove what was fetched and not taken."""
        shutil.rmtree(self._targets, ignore_errors=True)
        self._targets.mkdir(parents=True, exist_ok=True)

    def _new_updater(self) -> Updater:
        return Updater(
            metadata_dir=str(self._metadata),
            metadata_base_url=f"{self._url}/metadata/",
            target_dir=str(self._targets),
            target_base_url=f"{self._url}/targets/",
            fetcher=_Fetcher(app_user_agent="serinus-agent"),
            config=UpdaterConfig(),
            bootstrap=self._root,
        )

    def _download(self, ref: ReleaseRef, path: str, limit: int) -> Path:
        updater = self._updater
        assert updater is not None, "manifest() comes before file()"
        name = f"{ref.model}/{ref.version}/{path}"
        with _translated(name):
            info: TargetFile | None = updater.get_targetinfo(name)
            if info is None:
                raise ReleaseNotApproved(
                    f"{ref.name} is not approved: the release list has no {name}"
                )
            if info.length > limit:
                raise InvalidBundle(f"{name} has {info.length} bytes; the limit is {limit}")
            return Path(updater.download_target(info))


def _check_root(data: bytes) -> None:
    try:
        root = Metadata[Root].from_bytes(data)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (tuf_errors.RepositoryError, AttributeError, ValueError) as error:
        raise InvalidConfiguration(
            "[repository] trusted_root is not a TUF root: give the 1.root.json of the release "
            f"repository ({error})"
        ) from error


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn python-tuf's errors into ours, in one line."""
    try:
        yield
    except (tuf_errors.DownloadLengthMismatchError, tuf_errors.LengthOrHashMismatchError) as error:
        raise InvalidBundle(f"{what} was altered: it is not the approved file ({error})") from error
    except tuf_errors.UnsignedMetadataError as error:
        raise UntrustedBundle(f"{what} is signed by a foreign key: {error}") from error
    except tuf_errors.ExpiredMetadataError as error:
        # Nothing new is trusted, but it is the clock's or the list's fault and may pass: the
        # release is not refused for it.
        today = time.strftime("%Y-%m-%d", time.gmtime(time.time()))
        raise Unavailable(f"{what} has expired on {today}, by this clock: {error}") from error
    except tuf_errors.RepositoryError as error:
        raise UntrustedBundle(f"{what} cannot be trusted: {error}") from error
    except tuf_errors.DownloadError as error:
        raise Unavailable(f"{what} cannot be fetched: {error}") from error
    except OSError as error:
        raise Unavailable(f"{what} cannot be stored: {error.strerror or error}") from error
