"""Is this release approved? The TUF client (python-tuf) behind our port. Not thread-safe.

python-tuf decides; its metadata and our files come by the same timed requests. A file that was cut
goes on where it ended, and is checked as a whole against TUF's length and hashes before its bytes
get their name.
"""

import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_agent import download
from edge_agent.download import Downloader, Pace
from edge_agent.timed_http import TimedHttp
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

MAX_METADATA_BYTES = 5_000_000
"""What python-tuf takes of one file at most; for the time that it may need."""
MAX_METADATA_SECONDS = 120.0


class _Fetcher(FetcherInterface):
    """Gives python-tuf its metadata; its errors are python-tuf's."""

    def __init__(self, http: TimedHttp, pace: Pace) -> None:
        self._http = http
        self._seconds = min(pace.seconds_for(MAX_METADATA_BYTES), MAX_METADATA_SECONDS)

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self._http.get(url, {}, seconds=self._seconds) as answer:
                if answer.status != download.OK:
                    raise tuf_errors.DownloadHTTPError(
                        f"the server answers with status {answer.status}", answer.status
                    )
                yield from answer.chunks()
        except Unavailable as error:
            raise tuf_errors.DownloadError(str(error)) from error


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
        self._url = url.rstrip("/")
        self._root = trusted_root
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        for path in (self._metadata, self._targets):
            path.mkdir(parents=True, exist_ok=True)
        self._http = TimedHttp(stall_seconds=pace.stall_seconds, tls=tls)
        self._fetcher = _Fetcher(self._http, pace)
        self._downloader = Downloader(self._http, pace)
        self._updater: Updater | None = None

    def manifest(self, ref: ReleaseRef) -> bytes:
        """See :class:`edge_agent.ports.ApprovedReleases`. Refreshes the metadata first."""
        with _translated(f"{ref.name}: the release list"):
            self._updater = self._new_updater()
            self._updater.refresh()
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

    def _new_updater(self) -> Updater:
        return Updater(
            metadata_dir=str(self._metadata),
            metadata_base_url=f"{self._url}/metadata/",
            fetcher=self._fetcher,
            config=UpdaterConfig(),
            bootstrap=self._root,
        )

    def _download(self, ref: ReleaseRef, path: str, limit: int, destination: Path) -> None:
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
            self._fetch_target(info, destination)

    def _fetch_target(self, info: TargetFile, destination: Path) -> None:
        part = part_of(destination)
        resumed = part.exists()
        try:
            self._fetch_and_check(info, part)
        except tuf_errors.LengthOrHashMismatchError:
            if not resumed:
                raise
            # The two halves may be of two files: what is wrong then is not the release.
            self._fetch_and_check(info, part)
        download.finish(part, destination)

    def _fetch_and_check(self, info: TargetFile, part: Path) -> None:
        try:
            self._downloader.fetch(self._target_url(info), info.length, part)
        except Unavailable as error:
            raise tuf_errors.DownloadError(str(error)) from error
        try:
            with part.open("rb") as stream:
                info.verify_length_and_hashes(stream)
        except tuf_errors.LengthOrHashMismatchError:
            download.discard(part)
            raise

    def _target_url(self, info: TargetFile) -> str:
        """Where the file is; its hash is a part of its name (TUF specification, 7.4)."""
        folder, _, name = info.path.rpartition("/")
        root = Metadata[Root].from_file(str(self._metadata / "root.json")).signed
        if root.consistent_snapshot:
            name = f"{next(iter(info.hashes.values()))}.{name}"
        return f"{self._url}/targets/{folder}/{name}"


def part_of(destination: Path) -> Path:
    """Where a file is collected; no file of a bundle can have that name."""
    return destination.with_name(f".{destination.name}.part")


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
        raise NoDisk(f"{what} cannot be stored: {error.strerror or error}") from error
