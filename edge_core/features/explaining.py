"""Says where a feature definition is wrong: msgspec knows a place, a person looks for a name."""

import re
from typing import Any, get_args

from edge_core.errors import quoted
from edge_core.features.over_samples import SampleOperation
from edge_core.features.request_definition import RequestOperation
from edge_core.features.requests import FieldType

_PLACE = re.compile(r" - at `\$(\S*)`")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def explain(error: BaseException, given: Any) -> str:
    """The error's text, short, with the names of what it is in.

    Args:
        error: of msgspec.
        given: what it was about, as plain lists and dicts.
    """
    text = str(error)
    found = _PLACE.search(text)
    if found is None:
        return quoted(error)
    place = found[1]
    names = [name for name in _names(place, given) if not text.startswith(f"{name}:")]
    said = ", ".join(names) + ": " if names else ""
    if place.endswith(".op"):
        operations = RequestOperation if "request" in (given or {}) else SampleOperation
        text += f"; known are {_tags(operations)}"
    elif place.endswith(".dtype"):
        text += f"; known are {_tags(FieldType)}"
    return quoted(ValueError(said + text))


def _names(place: str, given: Any) -> list[str]:
    """Such as ``stream sales``, ``field price``, from the outside in."""
    found, kind = [], ""
    for key, index in _STEP.findall(place):
        try:
            given = given[int(index)] if index else given[key]
        except (KeyError, IndexError, TypeError):
            break
        kind = key or kind
        name = given.get("name") if index and isinstance(given, dict) else None
        if isinstance(name, str):
            found.append(f"{kind.removesuffix('s')} {name[:64]}")
    return found


def _tags(union: Any) -> str:
    return ", ".join(sorted(str(kind.__struct_config__.tag) for kind in get_args(union)))
