"""Reads the feature definition of a recipe, as a person wrote it."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from converters import recipe_code, zones
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidConfiguration, SerinusError, quoted
from edge_core.features import definition as definitions
from edge_core.features.definition import FeatureDefinition
from edge_core.features.explaining import explain
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition


class _Years(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A zone as TOML may name it."""

    name: str
    first_year: int
    last_year: int


def load(folder: Path, source: str) -> FeatureDefinition:
    """Read what a recipe names as its ``features``.

    Args:
        folder: of the recipe.
        source: ``.json``, as in a bundle; ``.toml``, the same for people; or ``module:function`` of
            the recipe's own Python, which takes nothing and returns the definition.

    A ``[[zones]]`` of TOML may say ``first_year`` and ``last_year`` instead of its offsets, which
    then come from this machine's time zone database; Python calls ``converters.zones.zone``.

    Raises:
        InvalidConfiguration: no such file or function, not TOML, or not a definition.
        InvalidBundle: JSON that is no definition.
    """
    if ":" in source:
        return _of_python(folder, source)
    path = folder / source
    if not path.is_file():
        raise InvalidConfiguration(
            f"{path.parent} has no {path.name}; the recipe names it as 'features'"
        )
    data = folders.read_limited(path, definitions.MAX_DEFINITION_BYTES)
    if path.suffix == ".toml":
        return _of_toml(path, data)
    # As the bundle will hold it, which takes more bytes than JSON on one line.
    return definitions.parse(definitions.serialize(definitions.parse(data)))


def _of_toml(path: Path, data: bytes) -> FeatureDefinition:
    try:
        given = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {quoted(error)}") from error
    if "request" in given and isinstance(given.get("zones", []), list):
        given["zones"] = [_zone(path, entry) for entry in given.get("zones", [])]
    return _converted(str(path), given)


def _of_python(folder: Path, source: str) -> FeatureDefinition:
    where = f"{folder}: {source}"
    function = recipe_code.definition(folder, source)
    try:
        made = function()
    except SerinusError:
        raise
    except (ValueError, TypeError) as error:  # what the parts of a definition say of themselves
        raise InvalidConfiguration(f"{where}: {quoted(error)}") from error
    if not isinstance(made, WindowDefinition | RequestDefinition):
        raise InvalidConfiguration(
            f"{where} returns a {type(made).__name__}; a WindowDefinition or RequestDefinition is "
            "needed"
        )
    # Parts that are made in Python check themselves, but not the limits of their single fields.
    return _converted(where, msgspec.to_builtins(made))


def _converted(where: str, given: dict[str, Any]) -> FeatureDefinition:
    kind: Any = RequestDefinition if "request" in given else WindowDefinition
    try:
        # Read as the bundle's bytes will be, so that both are the same.
        made: FeatureDefinition = msgspec.convert(given, kind)
        return definitions.parse(definitions.serialize(made))
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{where}: {explain(error, given)}") from error
    except (SerinusError, RecursionError, TypeError) as error:
        raise InvalidConfiguration(f"{where}: {quoted(error)}") from error


def _zone(path: Path, entry: Any) -> Any:
    if not isinstance(entry, dict) or not entry.keys() & {"first_year", "last_year"}:
        return entry
    try:
        years = msgspec.convert(entry, _Years)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(
            f"{path}: zone {entry.get('name')}: {quoted(error)}; it needs name, first_year and "
            "last_year"
        ) from error
    return msgspec.to_builtins(zones.zone(years.name, years.first_year, years.last_year))
