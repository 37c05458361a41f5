"""Is this release approved? What TUF lists, as releases, behind our port. Not thread-safe."""

import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root

from edge_agent.boot import boot_id
from edge_agent.clock import SystemClock
from edge_agent.download import Pace
from edge_agent.reference_time import ReferenceTime
from edge_agent.timed_http import TimedHttp
from edge_agent.tuf_client import TufClient
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import MANIFEST, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, FileEntry
from edge_core.errors import (
    InvalidBundle,
    InvalidConfiguration,
    NoDisk,
    ReleaseNotApproved,
    Unavailable,
    UntrustedBundle,
)
from edge_core.release import ReleaseRef


class TufRepository:
    """Approved releases by way of TUF's metadata, starting from the root the device was given.

    Raises:
        InvalidConfiguration: that root is none, or not signed by its own keys.
    """

    def __init__(
        self,
        *,
        url: str,
        trusted_root: bytes,
        folder: Path,
        pace: Pace | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        _check_root(trusted_root)
        pace = pace or Pace()
        url = url.rstrip("/")
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        for path in (self._metadata, self._targets):
            path.mkdir(parents=True, exist_ok=True)
        self.time = ReferenceTime(folder, SystemClock(), boot_id())
        """By which metadata end; another thread may ask it for its trouble."""
        self._http = TimedHttp(stall_seconds=pace.stall_seconds, tls=tls)
        self._client = TufClient(
            self._http,
            pace,
            metadata=self._metadata,
            metadata_url=f"{url}/metadata",
            targets_url=f"{url}/targets",
            trusted_root=trusted_root,
            time=self.time,
        )

    def manifest(self, ref: ReleaseRef) -> bytes:
        """See :class:`edge_agent.ports.ApprovedReleases`. Refreshes the metadata first."""
        with _translated(f"{ref.name}: the release list"):
            self._client.refresh()
        path = self._targets / f"{ref.digest}.{MANIFEST}"
        self._download(ref, MANIFEST, MAX_MANIFEST_BYTES, path)
        data = path.read_bytes()
        found = sha256_bytes(data)
        if found != ref.digest:
            raise ReleaseNotApproved(
                f"{ref.name} is approved with digest {found[:12]}, not with {ref.digest[:12]}"
            )
        return data

    def file(self, ref: ReleaseRef, entry: FileEntry, destination: Path) -> None:
        """See :class:`edge_agent.ports.ApprovedReleases`. Call :meth:`manifest` first."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        self._download(ref, entry.path, MAX_FILE_BYTES, destination)

    def cancel(self) -> None:
        """See :class:`edge_agent.ports.ApprovedReleases`."""
        self._http.cancel()

    def renew(self) -> None:
        """See :class:`edge_agent.ports.ApprovedReleases`."""
        self._http.renew()

    def clean(self) -> None:
        """Remove what was fetched and not taken."""
        shutil.rmtree(self._targets, ignore_errors=True)
        self._targets.mkdir(parents=True, exist_ok=True)

    def _download(self, ref: ReleaseRef, path: str, limit: int, destination: Path) -> None:
        name = f"{ref.model}/{ref.version}/{path}"
        with _translated(name):
            info = self._client.info(name)
            if info is None:
                raise ReleaseNotApproved(
                    f"{ref.name} is not approved: the release list has no {name}"
                )
            if info.length > limit:
                raise InvalidBundle(f"{name} has {info.length} bytes; the limit is {limit}")
            self._client.fetch(info, destination)


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
        raise Unavailable(f"{what} has expired: {error} (this device's clock: {today})") from error
    except tuf_errors.RepositoryError as error:
        raise UntrustedBundle(f"{what} cannot be trusted: {error}") from error
    except tuf_errors.DownloadError as error:
        raise Unavailable(f"{what} cannot be fetched: {error}") from error
    except OSError as error:
        raise NoDisk(f"{what} cannot be stored: {error.strerror or error}") from error
