"""Cells of the evidence as packed columns: what a verdict over 100,000 devices is stored with.

Each column is little-endian and as narrow as its largest value needs; its width follows from its
length. A cell takes about 25 bytes so, a tenth of the same in words.
"""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

WIDTHS = (1, 2, 4, 8)


class PackedCells(msgspec.Struct, frozen=True, kw_only=True):
    """n cells; every ``bytes`` is a column of n whole numbers, none below 0."""

    devices: list[str]
    """Distinct names."""
    slices: list[str]
    """Distinct keys, ``name=value,...``."""
    arms: list[str]
    """Distinct arms."""
    device: bytes
    """Places in ``devices``."""
    slice: bytes
    arm: bytes
    counts: dict[str, bytes]
    """By name, those of :class:`~fleet_server.domain.evidence.Cell`."""
    latency: list[bytes]
    """By bin."""

    @classmethod
    def of(
        cls,
        devices: Sequence[str],
        slices: Sequence[str],
        arms: Sequence[str],
        counts: dict[str, Sequence[int]],
        latency: Int64,
    ) -> Self:
        """Pack columns of n cells; ``latency`` is int64 [n, bins]. Counts below 0 become 0."""
        names = [_numbered(column) for column in (devices, slices, arms)]
        return cls(
            devices=names[0][0],
            slices=names[1][0],
            arms=names[2][0],
            device=_packed(names[0][1]),
            slice=_packed(names[1][1]),
            arm=_packed(names[2][1]),
            counts={name: _packed(np.array(column, np.int64)) for name, column in counts.items()},
            latency=[_packed(column) for column in latency.T],
        )

    def __len__(self) -> int:
        return self.unpack(self.arm, None).size

    def unpack(self, column: bytes, size: int | None) -> Int64:
        """One column, int64 [n]; ``size`` is n, none where a byte is a cell.

        Raises:
            ValueError: the column is not of n whole numbers.
        """
        n = len(column) if size is None else size
        width = len(column) // n if n else 1
        if width not in WIDTHS or width * n != len(column):
            raise ValueError(f"a column of {len(column)} bytes does not hold {n} numbers")
        return np.frombuffer(column, f"<u{width}").astype(np.int64)


def _numbered(column: Sequence[str]) -> tuple[list[str], Int64]:
    names = sorted(set(column))
    place = {name: number for number, name in enumerate(names)}
    return names, np.fromiter(map(place.__getitem__, column), np.int64, len(column))


def _packed(values: Int64) -> bytes:
    true = np.maximum(values, 0)
    most = int(true.max(initial=0))
    width = next(width for width in WIDTHS if most < 256**width)
    return true.astype(f"<u{width}").tobytes()
