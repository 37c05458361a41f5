"""Compressed bytes that never grow beyond what their reader allows."""

import zlib

from edge_core.errors import InvalidInput, quoted


def pack(data: bytes, *, level: int = 6) -> bytes:
    """Compress (zlib)."""
    return zlib.compress(data, level)


def unpack(data: bytes, limit: int) -> bytes:
    """Read what :func:`pack` made.

    Args:
        data: compressed bytes, from anywhere.
        limit: bytes that may come out of it; no more than that is ever made.

    Raises:
        InvalidInput: damaged, cut short, followed by other bytes, or larger than the limit.
    """
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"packed bytes are damaged: {quoted(error)}") from error
    if len(found) > limit:
        raise InvalidInput(f"packed bytes grow beyond {limit} bytes")
    if not reader.eof or reader.unused_data:
        raise InvalidInput("packed bytes are cut short, or other bytes follow them")
    return found
