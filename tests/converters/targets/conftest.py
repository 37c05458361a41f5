"""Where the emulated processor is not installed, its tests skip and say why; CI may forbid that."""

import os

import pytest

from converters.targets import emulation


@pytest.fixture(scope="session")
def emulated_aarch64() -> None:
    """The aarch64 runtimes, natively or under emulation."""
    if lack := emulation.missing():
        if os.environ.get("CI_REQUIRES_EMULATION") == "1":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)
