from pathlib import Path

import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving.release import LoadedRelease
from tests.simulators.tiny_bundle import TARGET, tiny_bundle


@pytest.fixture
def release(tmp_path: Path) -> LoadedRelease:
    return LoadedRelease.open(tiny_bundle(tmp_path / "one"), TARGET)


@pytest.fixture
def other(tmp_path: Path) -> LoadedRelease:
    """Another version of the same model, with slightly other weights."""
    return LoadedRelease.open(tiny_bundle(tmp_path / "two", version="1.1.0", seed=1), TARGET)


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(device="d1", sample_every=10, now_ms=1000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
