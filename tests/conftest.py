"""What tests of several parts share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How quickly examples are made says something about the machine, not about the code.
settings.register_profile("machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("machines")


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for builds of whole recipes, so that none is trained twice."""
    return tmp_path_factory.mktemp("stages")
