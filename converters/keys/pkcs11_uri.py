"""Names of keys on PKCS#11 tokens, as RFC 7512 writes them. Pure."""

from typing import Final
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from edge_core.errors import InvalidConfiguration

SCHEME: Final = "pkcs11:"
MAX_URI: Final = 2000
FORM: Final = "pkcs11:token=LABEL;object=NAME"
_TOKEN: Final = ("token", "serial", "manufacturer", "model")
_OBJECT: Final = ("object", "id", "type")
_QUERY: Final = ("module-path", "pin-source")


class TokenKeyName(msgspec.Struct, frozen=True, kw_only=True):
    """Which key on which token; what is none matches every one."""

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: str | None = None
    pin_source: str | None = None
    """File with the PIN."""


def is_one(place: str) -> bool:
    """Whether a key's place is on a token, not in a file."""
    return place.startswith(SCHEME)


def parse(text: str) -> TokenKeyName:
    """Read a URI.

    Raises:
        InvalidConfiguration: an attribute is unknown, twice or malformed, no key is named, or the
            PIN itself stands in it.
    """
    if not is_one(text) or len(text) > MAX_URI:
        raise InvalidConfiguration(f"{text[:80]!r} is not the URI of a key: write {FORM}")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    found = _attributes(path, ";", (*_TOKEN, *_OBJECT))
    asked = _attributes(query, "&", _QUERY)
    if found.get("type", "private") != "private":
        raise InvalidConfiguration(f"type={found['type']}: a private key signs; leave the type out")
    if not {"object", "id"} & found.keys():
        raise InvalidConfiguration(f"{text!r} names no key: add object=NAME or id=%01")
    return TokenKeyName(
        **{name: unquote(found[name]) for name in (*_TOKEN, "object") if name in found},
        id=unquote_to_bytes(found["id"]) if "id" in found else None,
        module_path=unquote(asked["module-path"]) if "module-path" in asked else None,
        pin_source=_file(unquote(asked["pin-source"])) if "pin-source" in asked else None,
    )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise InvalidConfiguration(
                "pin-value would show the PIN to everybody on this machine: write the PIN into a "
                "file and name it with pin-source=PATH"
            )
        if name not in known or not equals or not value:
            raise InvalidConfiguration(
                f"{part[:80]!r} in the key's URI is not understood: known are {', '.join(known)}"
            )
        if name in found:
            raise InvalidConfiguration(f"{name} stands twice in the key's URI")
        found[name] = value
    return found


def _file(source: str) -> str:
    return source.removeprefix("file:").removeprefix("//")
