"""What differs between two releases, from what their signed manifests say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

KEYS: Final = ("target", "gate", "slice", "name", "path", "role", "layer")
"""What tells entries of a list apart, where they have some of it."""
LEFT_OUT: Final = ("files", "schema_version", "model", "version")
"""Files are compared by their digests; the rest is what the releases are called."""
MOST = 2000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is otherwise."""

    part: str
    """First word of the manifest's section, such as ``metrics`` or ``variants``."""
    place: str
    before: Any
    """None where it is new."""
    after: Any
    """None where it is gone."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Compare two manifests as plain values, section by section."""
    sides = [_flat({k: v for k, v in m.items() if k not in LEFT_OUT}) for m in (before, after)]
    sides = [s | _digests(m) for s, m in zip(sides, (before, after), strict=True)]
    found = [
        Difference(
            part=place.partition(".")[0].partition("[")[0],
            place=place,
            before=sides[0].get(place),
            after=sides[1].get(place),
        )
        for place in sorted(sides[0].keys() | sides[1].keys())
        if sides[0].get(place) != sides[1].get(place)
    ]
    return found[:MOST]


def _digests(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {f"files[{entry['path']}]": entry["sha256"] for entry in manifest.get("files", ())}


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves by their place."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for name, inner in value.items():
            found |= _flat(inner, f"{place}.{name}" if place else str(name))
        return found
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and _named(value):
        found = {}
        for entry in value:
            found |= _flat(entry, f"{place}[{_name(entry)}]")
        return found
    return {place: value}


def _named(values: Sequence[Any]) -> bool:
    """Whether the entries of a list can be told apart by what they say."""
    if not values or not all(isinstance(entry, Mapping) for entry in values):
        return False
    names = [_name(entry) for entry in values]
    return all(names) and len(set(names)) == len(names)


def _name(entry: Mapping[str, Any]) -> str:
    return " ".join(str(entry[key]) for key in KEYS if entry.get(key) not in (None, ""))
