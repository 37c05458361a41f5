from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulators.repository import RepositorySimulator


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[RepositorySimulator]:
    with RepositorySimulator(tmp_path / "source") as simulator:
        yield simulator
