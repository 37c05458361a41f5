"""Functions that a definition may name beside the built-in operations.

A function is registered under a name and a version; the digest of its source stands in the
definition, so that a device whose function differs refuses the definition. It has to be pure and
to use only what IEEE 754 rounds correctly.

A package brings functions by an entry point of the group ``serinus.functions`` that names the
module which registers them; converter, agent and server import it when a definition needs one.
"""

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidBundle, quoted
from edge_core.features.over_rows import Registered

Float64 = npt.NDArray[np.float64]
Function = Callable[..., Float64]
"""Columns float64 [n], one for each input -> float64 [n]; NaN where it has no value."""

GROUP = "serinus.functions"

_FUNCTIONS: dict[tuple[str, int], Function] = {}


def register(name: str, version: int) -> Callable[[Function], Function]:
    """Register a function; another version needs another number.

    Raises:
        ValueError: the name and version are taken by another function.
    """

    def registering(function: Function) -> Function:
        taken = _FUNCTIONS.setdefault((name, version), function)
        if digest(taken) != digest(function):
            raise ValueError(f"{name} version {version} is registered with other source already")
        return function

    return registering


def digest(function: Function) -> str:
    """Sha256 of a function's source, its place in the file aside."""
    return hashlib.sha256(textwrap.dedent(inspect.getsource(function)).encode()).hexdigest()


def find(feature: Registered) -> Function:
    """The function that a feature names.

    Raises:
        InvalidBundle: it is not registered here, or with other source; or a package's module of
            functions cannot be imported.
    """
    key = feature.function, feature.version
    if key not in _FUNCTIONS:
        _import_packages()
    function = _FUNCTIONS.get(key)
    if function is None:
        raise InvalidBundle(
            f"feature {feature.name} needs the function {feature.function} version "
            f"{feature.version}, which is not registered here: install the package that has it"
        )
    if digest(function) != feature.sha256:
        raise InvalidBundle(
            f"feature {feature.name}: the function {feature.function} version {feature.version} "
            "registered here has other source than the one that the release was built with"
        )
    return function


@functools.cache
def _import_packages() -> None:
    """Let installed packages register their functions, once."""
    from importlib import metadata  # 3 MB that most devices never need

    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # whatever a foreign module does wrong
            raise InvalidBundle(
                f"functions of the installed package {point.dist and point.dist.name} cannot be "
                f"imported from {point.value}: {quoted(error)}"
            ) from error
