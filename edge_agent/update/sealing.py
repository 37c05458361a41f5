"""Text files that tell when one bit of them changed: the second line is the digest of the first."""

from edge_core.bundle.digest import sha256_bytes


def seal(body: bytes) -> bytes:
    """The file's bytes for one line of text."""
    return body + b"\n" + sha256_bytes(body).encode() + b"\n"


def unseal(data: bytes) -> tuple[bytes, bool]:
    """The text of a file, and whether it was sealed.

    Raises:
        ValueError: it is sealed, and not as it was written.
    """
    body, mark, digest = data.partition(b"\n")
    if not mark:
        return data, False
    if digest != sha256_bytes(body).encode() + b"\n":
        raise ValueError("its bytes are not those of its digest")
    return body, True
