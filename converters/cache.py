"""A content-addressed store of what stages made, shared by builds and by processes side by side.

A key says everything that the bytes depend on (``converters.pipeline``), so an entry is never
stale; a damaged entry is made again.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 2 * 1024**3
"""What a store may hold; the entries that were not used for longest go first."""
DIGEST_BYTES = 32


class Cache:
    """Entries below one folder, each with its own digest in front."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold a key, so that of two processes that want it one makes it and one waits."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / key).open("w") as lock:  # closing it lets go, also after a kill
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def get(self, key: str) -> bytes | None:
        """The entry's bytes; none where there is none, or it is damaged."""
        path = self.folder / key
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == digest else None

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes under a key; an interrupted write leaves no entry."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{key}.{os.getpid()}"
        try:
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
            temporary.replace(self.folder / key)
        finally:
            temporary.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove the entries unused for longest, until the rest fits."""
        entries = []
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    entries.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def default_folder() -> Path:
    """``$SERINUS_CACHE``, else below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if named := os.environ.get("SERINUS_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "serinus" / "stages"
