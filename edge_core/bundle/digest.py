"""Streaming sha256 digests. No policy: what a digest has to be is the caller's business."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from edge_core.errors import InvalidBundle

CHUNK_BYTES = 1024 * 1024


class Digest(NamedTuple):
    """Sha256 in lower-case hex, and the number of bytes that it covers."""

    sha256: str
    size: int


def sha256_bytes(data: bytes) -> str:
    """Lower-case hex sha256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path, *, limit: int) -> Digest:
    """Digest a file in constant memory.

    Raises:
        InvalidBundle: the file is missing, unreadable or has more than ``limit`` bytes.
    """
    hasher = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise InvalidBundle(f"{path.name} has more than the {limit} bytes allowed")
                hasher.update(chunk)
    except OSError as error:
        raise InvalidBundle(f"cannot read {path}: {error.strerror}") from error
    return Digest(hasher.hexdigest(), size)
