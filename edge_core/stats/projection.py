"""Random projections: an embedding's coordinates are too many to count, a few directions are not.

A shift of the mean by a vector d, seen from a random direction, is normally distributed with
standard deviation |d| / sqrt(size), whatever coordinates it is in. Sources: Johnson and
Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space" (1984); with random signs
instead of normal deviates: Achlioptas, "Database-friendly random projections" (2003).
"""

import hashlib
import math
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

EMBEDDING: Final = "embedding"
"""Name of the output, and the beginning of its channels' names."""
MAX_SIZE = 16384
MAX_DIRECTIONS = 32
MOST_PRODUCTS = 2**18
"""Of one call. Some four times as many make OpenBLAS start threads: they would take cores that are
others', and took a hundred times as long where those were busy."""

Float32 = npt.NDArray[np.float32]


class Projection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Directions of length 1 whose coordinates differ by their signs alone.

    They travel with the release, so that whoever projects needs no generator.
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE)]
    """Coordinates of the embedding."""
    directions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIRECTIONS)]
    signs: bytes
    """One bit for each coordinate, direction by direction, the high bit of a byte first; 1 is +."""

    def __post_init__(self) -> None:
        if len(self.signs) != _bytes(self.size, self.directions):
            raise ValueError(
                f"{len(self.signs)} bytes of signs where {self.directions} directions of "
                f"{self.size} coordinates have {_bytes(self.size, self.directions)}"
            )

    @property
    def names(self) -> list[str]:
        """Of the channels, one for each direction."""
        return [f"{EMBEDDING}[{place}]" for place in range(self.directions)]


class Projector:
    """Projects rows. Immutable; safe to share."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        size, directions = projection.size, projection.directions
        bits = np.unpackbits(np.frombuffer(projection.signs, np.uint8), count=size * directions)
        # Contiguous float64 [size, directions] of -1 and 1.
        self._signs = np.ascontiguousarray(bits.reshape(directions, size).T * 2.0 - 1.0)

    def project(self, embedding: Float32) -> Float32:
        """Float32 [rows, size] -> float32 [rows, directions]; NaN where a coordinate is NaN.

        Sums of float32 values are exact in float64 unless the largest is 2**20 times the least, so
        the order in which a processor adds them does not matter.
        """
        if embedding.shape[1:] != (self.projection.size,):
            raise ValueError(
                f"an embedding of {list(embedding.shape[1:])} coordinates where the release has "
                f"{self.projection.size}"
            )
        found = np.empty((len(embedding), self.projection.directions), np.float32)
        length, step = math.sqrt(self.projection.size), max(1, MOST_PRODUCTS // self._signs.size)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(embedding), step):
                wide = embedding[start : start + step].astype(np.float64)
                found[start : start + step] = wide @ self._signs / length
        return found

    def none(self, rows: int) -> Float32:
        """What rows without an embedding count as: float32 [rows, directions] of NaN."""
        return np.full((rows, self.projection.directions), np.nan, np.float32)


def draw(release: str, size: int, directions: int) -> Projection:
    """Directions for a release, ``model@version``: the same for ever, on every machine."""
    drawn = hashlib.shake_256(f"{EMBEDDING} of {release}".encode())
    return Projection(
        size=size, directions=directions, signs=drawn.digest(_bytes(size, directions))
    )


def _bytes(size: int, directions: int) -> int:
    return -(-size * directions // 8)
