from pathlib import Path

import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving.release import LoadedRelease
from edge_core.features.requests import Keep
from tests.simulators.tiny_bundle import TARGET, tiny_bundle
from tests.simulators.tiny_requests import define, tiny_requests


@pytest.fixture
def release(tmp_path: Path) -> LoadedRelease:
    return LoadedRelease.open(tiny_bundle(tmp_path / "one"), TARGET)


@pytest.fixture
def other(tmp_path: Path) -> LoadedRelease:
    """Another version of the same model, with slightly other weights."""
    return LoadedRelease.open(tiny_bundle(tmp_path / "two", version="1.1.0", seed=1), TARGET)


@pytest.fixture
def parcels(tmp_path: Path) -> LoadedRelease:
    """A release that answers requests."""
    return LoadedRelease.open(tiny_requests(tmp_path / "parcels"), TARGET)


@pytest.fixture
def other_parcels(tmp_path: Path) -> LoadedRelease:
    """Another version with the same feature definition."""
    folder = tiny_requests(tmp_path / "more parcels", version="1.1.0", seed=1)
    return LoadedRelease.open(folder, TARGET)


@pytest.fixture
def changed_parcels(tmp_path: Path) -> LoadedRelease:
    """Another version with another feature definition."""
    folder = tiny_requests(
        tmp_path / "other parcels", version="2.0.0", definition=define(Keep(entities=32))
    )
    return LoadedRelease.open(folder, TARGET)


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(device="d1", sample_every=10, now_ms=1000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
