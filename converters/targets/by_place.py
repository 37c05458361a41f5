"""Arrays in order as an ``.npz`` file, for workers in other processes that know no names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.tensors import Array


def save_places(path: Path, arrays: Sequence[Array]) -> None:
    """Write arrays under their places: ``0``, ``1``, and so on."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{str(i): array for i, array in enumerate(arrays)})


def load_places(path: Path) -> list[Array]:
    """The arrays that :func:`save_places`, or a worker, wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(place)] for place in range(len(arrays.files))]
