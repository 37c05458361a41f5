"""The TUF client workflow (TUF specification 1.0.34, section 5) over our timed, resumable requests.

python-tuf decides; its metadata and our files come by the same timed requests. A file that was cut
goes on where it ended, and is checked as a whole against TUF's length and hashes before its bytes
get their name. Not thread-safe.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_agent import download
from edge_agent.download import Downloader, Pace
from edge_agent.reference_time import Moment, ReferenceTime
from edge_agent.timed_http import TimedHttp
from edge_core.errors import Unavailable

MAX_METADATA_BYTES = 5_000_000
"""What python-tuf takes of one file at most; for the time that it may need."""
MAX_METADATA_SECONDS = 120.0
TOP_LEVEL = (Root.type, Timestamp.type, Snapshot.type, Targets.type)


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


class TufClient:
    """One repository's metadata, and the files that it lists.

    Every method raises python-tuf's ``RepositoryError`` and ``DownloadError``.
    """

    def __init__(
        self,
        http: TimedHttp,
        pace: Pace,
        *,
        metadata: Path,
        metadata_url: str,
        targets_url: str,
        trusted_root: bytes | None,
        time: ReferenceTime | None = None,
    ) -> None:
        """Take the parts.

        Args:
            http: for all requests.
            pace: of metadata and files.
            metadata: folder of what is trusted, kept from run to run.
            metadata_url: where metadata are served.
            targets_url: where files are served.
            trusted_root: root metadata to begin with; none: what is in ``metadata`` already.
            time: by which metadata end, beside the wall clock; none: by that alone.
        """
        self._fetcher = _Fetcher(http, pace)
        self._downloader = Downloader(http, pace)
        self._metadata = metadata
        self._metadata_url = f"{metadata_url.rstrip('/')}/"
        self._targets_url = targets_url.rstrip("/")
        self._root = trusted_root
        self._time = time
        self._updater: Updater | None = None
        self._fresh: set[str] = set()
        """Delegated roles that have not ended, since the refresh."""

    def refresh(self) -> None:
        """Follow the roots, then take the newest timestamp, snapshot and targets."""
        self._updater = Updater(
            metadata_dir=str(self._metadata),
            metadata_base_url=self._metadata_url,
            fetcher=self._fetcher,
            config=UpdaterConfig(),
            bootstrap=self._root,
        )
        self._updater.refresh()
        self._fresh.clear()
        if self._time is not None:
            moment = self._time.moment()
            ended = self._ended(TOP_LEVEL, self._time, moment)
            self._time.keep(moment, accepted=not ended)
            if ended:
                raise tuf_errors.ExpiredMetadataError(ended)

    def info(self, path: str) -> TargetFile | None:
        """What the newest list says of a file, delegations included; none where it lists none."""
        assert self._updater is not None, "refresh() comes first"
        info = self._updater.get_targetinfo(path)
        if self._time is not None:
            roles = [role for role in self._asked(path) if role not in self._fresh]
            ended = self._ended(roles, self._time, self._time.moment())
            if ended:
                raise tuf_errors.ExpiredMetadataError(ended)
            self._fresh.update(roles)
        return info

    def _ended(self, roles: Iterable[str], time: ReferenceTime, moment: Moment) -> str:
        """What is wrong with trusted metadata that have ended by the reference time.

        python-tuf keeps what it trusts below ``metadata`` and has looked at the wall clock.
        """
        now = time.at(moment)
        for role in roles:
            signed = self._trusted(role)
            if signed.is_expired(now):
                return (
                    f"{role}.json has ended on {signed.expires:%Y-%m-%d %H:%M}Z, and it is "
                    f"{now:%Y-%m-%d %H:%M}Z at least by the time that passed here"
                )
        return ""

    def _asked(self, path: str) -> list[str]:
        """Delegated roles that were asked for a file: those up to the first that lists it."""
        targets = self._trusted(Targets.type)
        assert isinstance(targets, Targets)
        if path in targets.targets or targets.delegations is None:
            return []
        roles = [role for role, _ in targets.delegations.get_roles_for_target(path)]
        return [role for role in roles if self._file(role).exists()]

    def _trusted(self, role: str) -> Signed:
        signed: Signed = Metadata.from_file(str(self._file(role))).signed
        return signed

    def _file(self, role: str) -> Path:
        return self._metadata / f"{quote(role, '')}.json"

    def fetch(self, info: TargetFile, destination: Path) -> None:
        """Bring a listed file to ``destination``, whose folder is there already."""
        part = part_of(destination)
        resumed = part.exists()
        try:
            self._fetch_and_check(info, part)
        except tuf_errors.LengthOrHashMismatchError:
            if not resumed:
                raise
            # The two halves may be of two files: what is wrong then is not the file.
            self._fetch_and_check(info, part)
        download.finish(part, destination)

    def _fetch_and_check(self, info: TargetFile, part: Path) -> None:
        try:
            self._downloader.fetch(self._url_of(info), info.length, part)
        except Unavailable as error:
            raise tuf_errors.DownloadError(str(error)) from error
        try:
            with part.open("rb") as stream:
                info.verify_length_and_hashes(stream)
        except tuf_errors.LengthOrHashMismatchError:
            download.discard(part)
            raise

    def _url_of(self, info: TargetFile) -> str:
        """Where the file is; its hash is a part of its name (TUF specification, 6.2)."""
        folder, separator, name = info.path.rpartition("/")
        root = Metadata[Root].from_file(str(self._metadata / "root.json")).signed
        if root.consistent_snapshot:
            name = f"{next(iter(info.hashes.values()))}.{name}"
        return f"{self._targets_url}/{folder}{separator}{name}"


def part_of(destination: Path) -> Path:
    """Where a file is collected; no file of a bundle can have that name."""
    return destination.with_name(f".{destination.name}.part")
