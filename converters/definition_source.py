"""Reads the feature definition of a recipe, as a person wrote it."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from converters import zones
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidConfiguration, quoted
from edge_core.features import definition as definitions
from edge_core.features.definition import FeatureDefinition
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition


def load(path: Path) -> FeatureDefinition:
    """Read ``.json``, as in a bundle, or ``.toml``, the same for people.

    A ``[[zones]]`` of TOML may say ``first_year`` and ``last_year`` instead of its offsets, which
    then come from this machine's time zone database.

    Raises:
        InvalidConfiguration: no such file, not TOML, or not a definition.
        InvalidBundle: JSON that is no definition.
    """
    if not path.is_file():
        raise InvalidConfiguration(
            f"{path.parent} has no {path.name}; the recipe names it as 'features'"
        )
    data = folders.read_limited(path, definitions.MAX_DEFINITION_BYTES)
    return _of_toml(path, data) if path.suffix == ".toml" else definitions.parse(data)


def _of_toml(path: Path, data: bytes) -> FeatureDefinition:
    try:
        given = tomllib.loads(data.decode())
        given["zones"] = [_zone(entry) for entry in given.get("zones", [])]
        if "request" in given:
            return msgspec.convert(given, RequestDefinition)
        del given["zones"]
        return msgspec.convert(given, WindowDefinition)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    except (msgspec.ValidationError, RecursionError, TypeError) as error:
        raise InvalidConfiguration(f"{path}: {quoted(error)}") from error


def _zone(entry: Any) -> Any:
    if not isinstance(entry, dict) or not entry.keys() >= {"first_year", "last_year"}:
        return entry
    made = zones.zone(str(entry.get("name")), int(entry["first_year"]), int(entry["last_year"]))
    return msgspec.to_builtins(made)
