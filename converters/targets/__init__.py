"""One file for each family of targets; :func:`open_target` finds the right one by its profile."""

import importlib
from pathlib import Path
from typing import cast

from converters.targets import profile
from converters.targets.target import Target
from edge_core.errors import InvalidConfiguration


def open_target(name: str, folder: Path = profile.PROFILES) -> Target:
    """The adapter for a target.

    Raises:
        InvalidConfiguration: no such profile, or the profile names no adapter that there is.
    """
    found = profile.load(name, folder)
    try:
        module = importlib.import_module(f"{__name__}.{found.adapter}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{found.adapter}":
            raise
        raise InvalidConfiguration(
            f"target {name}: there is no adapter {found.adapter} in converters/targets"
        ) from error
    return cast(Target, module.Adapter(found))
