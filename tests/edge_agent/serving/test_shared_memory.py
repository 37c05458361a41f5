import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.serving.shared_memory import MAX_REGION_BYTES, MAX_REGIONS, SharedRegions
from edge_agent.shared_windows import SharedWindows
from edge_core.errors import InvalidInput

SHAPE = (4, 8, 2)
SIZE = 4 * 4 * 8 * 2


@pytest.fixture
def regions() -> Iterator[SharedRegions]:
    made = SharedRegions()
    yield made
    made.close()


@pytest.fixture
def windows() -> Iterator[SharedWindows]:
    made = SharedWindows(1, SHAPE)
    made.array[:] = np.arange(64).reshape(SHAPE)
    yield made
    made.close()


def test_what_is_written_there_is_seen(regions: SharedRegions, windows: SharedWindows) -> None:
    regions.attach(1, SIZE, windows.descriptor)
    np.testing.assert_array_equal(regions.windows(1, 0, SHAPE), windows.array)
    seen = regions.windows(1, 64, (1, 8, 2))
    windows.array[:] = 0
    np.testing.assert_array_equal(seen[0], np.arange(16, 32).reshape(8, 2))
    assert not regions.windows(1, 0, SHAPE).any()


@pytest.mark.parametrize(
    ("offset", "shape"),
    [
        (4, SHAPE),
        (-4, (1, 8, 2)),
        (2, (1, 8, 2)),
        (0, (0, 8, 2)),
        (0, (1, -8, -2)),
        (0, (2**40, 8, 2)),
    ],
)
def test_windows_outside_of_the_region_are_refused(
    regions: SharedRegions, windows: SharedWindows, offset: int, shape: tuple[int, int, int]
) -> None:
    regions.attach(1, SIZE, windows.descriptor)
    with pytest.raises(InvalidInput, match="does not lie in the region"):
        regions.windows(1, offset, shape)


def test_memory_that_may_shrink_is_refused(regions: SharedRegions, tmp_path: Path) -> None:
    plain = os.memfd_create("plain", os.MFD_ALLOW_SEALING)
    os.ftruncate(plain, SIZE)
    with pytest.raises(InvalidInput, match="seal it"):
        regions.attach(1, SIZE, plain)
    fcntl.fcntl(plain, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with pytest.raises(InvalidInput, match="fewer than"):
        regions.attach(1, SIZE + 1, plain)
    regions.attach(1, SIZE, plain)
    os.close(plain)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, SIZE)
    with pytest.raises(InvalidInput, match=r"not a memfd|can shrink"):
        regions.attach(2, SIZE, file)
    os.close(file)
    with pytest.raises(InvalidInput, match="not a memfd"):
        regions.attach(2, SIZE, file)


def test_regions_are_bounded(regions: SharedRegions, windows: SharedWindows) -> None:
    for size in (0, -1, MAX_REGION_BYTES + 1):
        with pytest.raises(InvalidInput, match="a region has"):
            regions.attach(1, size, windows.descriptor)
    for number in range(MAX_REGIONS):
        regions.attach(number, SIZE, windows.descriptor)
    regions.attach(3, SIZE, windows.descriptor)  # in the place of the old one
    with pytest.raises(InvalidInput, match="detach some"):
        regions.attach(MAX_REGIONS, SIZE, windows.descriptor)
    regions.detach(0)
    regions.detach(0)
    regions.attach(MAX_REGIONS, SIZE, windows.descriptor)
    with pytest.raises(InvalidInput, match="not attached"):
        regions.windows(0, 0, SHAPE)


def test_windows_without_rows_have_no_memory() -> None:
    with pytest.raises(InvalidInput, match="holds no windows"):
        SharedWindows(1, (0, 8, 2))
