"""What tests of several parts share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for builds of whole recipes, so that none is trained twice."""
    return tmp_path_factory.mktemp("stages")
