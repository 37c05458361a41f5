"""Windows in memory that an application shares with the agent."""

import fcntl
import mmap
import os

import numpy as np

from edge_agent.inference.session import Float32
from edge_core.errors import InvalidInput


class SharedWindows:
    """The application's side of a region: fill ``array``, then ask for answers.

    The memory has no name that could be left behind, and cannot shrink under the agent's hands.
    """

    def __init__(self, region: int, shape: tuple[int, int, int]) -> None:
        """Make room for windows of float32 [batch, samples, inputs].

        Raises:
            InvalidInput: the shape holds nothing.
        """
        if min(shape) < 1:
            raise InvalidInput(f"shape {list(shape)} holds no windows")
        size = 4 * shape[0] * shape[1] * shape[2]
        self.region = region
        self.shape = shape
        self.descriptor = os.memfd_create("serinus", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, size)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.array: Float32 = np.frombuffer(mmap.mmap(self.descriptor, size), "<f4").reshape(shape)
        """What the agent sees."""

    def close(self) -> None:
        """Let go of the descriptor; the memory goes with the last who holds it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
