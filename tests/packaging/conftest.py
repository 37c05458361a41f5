"""Where Prometheus is not installed, its tests skip and say why; CI may forbid that."""

import os
import shutil

import pytest

LACK = "Prometheus and promtool are not on this machine: install the package prometheus"


@pytest.fixture(scope="session")
def prometheus() -> None:
    """The server and its tool, on the path."""
    if all(shutil.which(name) for name in ("prometheus", "promtool")):
        return
    if os.environ.get("CI_REQUIRES_PROMETHEUS") == "1":
        pytest.fail(LACK, pytrace=False)
    pytest.skip(LACK)
