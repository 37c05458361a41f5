"""Memory that an application shares with the agent, for windows too large to be sent around.

Only a memfd that is sealed against shrinking is taken: the agent would die by SIGBUS of a region
that becomes shorter under its hands.
"""

import fcntl
import mmap
import os

import numpy as np

from edge_agent.inference.session import Float32
from edge_core.errors import InvalidInput

MAX_REGIONS = 16
MAX_REGION_BYTES = 256 * 1024 * 1024


class SharedRegions:
    """The regions of one connection."""

    def __init__(self) -> None:
        self._regions: dict[int, mmap.mmap] = {}

    @property
    def numbers(self) -> list[int]:
        """Of the regions that are attached."""
        return sorted(self._regions)

    def attach(self, region: int, size: int, descriptor: int) -> None:
        """Map a region; the descriptor stays the caller's.

        Raises:
            InvalidInput: it is no sealed memfd of that size, or there are too many.
        """
        if region not in self._regions and len(self._regions) >= MAX_REGIONS:
            raise InvalidInput(f"more than {MAX_REGIONS} regions; detach some")
        if not 1 <= size <= MAX_REGION_BYTES:
            raise InvalidInput(f"a region has 1 to {MAX_REGION_BYTES} bytes, not {size}")
        try:
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if not sealed:
                raise InvalidInput("the memory can shrink; seal it with F_SEAL_SHRINK")
            if os.fstat(descriptor).st_size < size:
                raise InvalidInput(f"the memory has fewer than {size} bytes")
            mapped = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"not a memfd that can be mapped: {error}") from error
        self.detach(region)
        self._regions[region] = mapped

    def detach(self, region: int) -> None:
        """Let go of a region; of an unknown one, nothing happens."""
        mapped = self._regions.pop(region, None)
        if mapped is not None:
            mapped.close()

    def windows(self, region: int, offset: int, shape: tuple[int, int, int]) -> Float32:
        """A copy of windows, float32 of the shape: the application may write on meanwhile.

        Raises:
            InvalidInput: they do not lie in an attached region.
        """
        mapped = self._regions.get(region)
        if mapped is None:
            raise InvalidInput(f"region {region} is not attached")
        count = shape[0] * shape[1] * shape[2]
        if min(shape) < 1 or not 0 <= offset <= len(mapped) - 4 * count or offset % 4:
            raise InvalidInput(
                f"shape {list(shape)} at byte {offset} does not lie in the region's "
                f"{len(mapped)} bytes, or not at a multiple of 4"
            )
        found: Float32 = np.frombuffer(mapped, "<f4", count, offset).copy()
        return found.reshape(shape)

    def close(self) -> None:
        """Let go of all."""
        for region in self.numbers:
            self.detach(region)
