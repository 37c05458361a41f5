"""Values as trees, and writers that also put down what no proper encoder would.

Maps keep their order and may hold a key twice; numbers may be larger than the format allows.
"""

import json
import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

MOST_PLACES = 2000


class Pairs(list[list[Any]]):
    """A map: lists of a key and a value."""


class Verbatim(NamedTuple):
    """Bytes that stand in the place of a value, as they are."""

    data: bytes


class Extension(NamedTuple):
    """A msgpack extension; in JSON an empty map."""

    code: int
    data: bytes


def of(value: Any) -> Any:
    """The tree of a decoded value."""
    match value:
        case dict():
            return Pairs([of(key), of(held)] for key, held in value.items())
        case list() | tuple():
            return [of(held) for held in value]
        case msgspec.msgpack.Ext(code=code, data=data):
            return Extension(code, bytes(data))
        case _:
            return value


def places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """The first places in the tree, as the list that holds it and the index there, with keys."""
    waiting = [tree]
    found = 0
    while waiting and found < MOST_PLACES:
        found += 1
        held = waiting.pop()
        if isinstance(held, Pairs):
            for pair in held:
                yield pair, 0
                yield pair, 1
                waiting.append(pair[1])
        elif isinstance(held, list):
            for index, value in enumerate(held):
                yield held, index
                waiting.append(value)


def read_json(data: bytes) -> Any:
    """Parse JSON into a tree; raise ``ValueError`` where it is none."""
    return json.loads(
        data.decode(), object_pairs_hook=lambda pairs: Pairs([k, v] for k, v in pairs)
    )


def write_json(tree: Any) -> bytes:
    """JSON, with the liberties that the module's docstring names."""
    match tree:
        case Verbatim(data):
            return data
        case Pairs():
            held = b",".join(_json_key(key) + b":" + write_json(value) for key, value in tree)
            return b"{" + held + b"}"
        case list():
            return b"[" + b",".join(map(write_json, tree)) + b"]"
        case bytes():
            return b'"' + tree.replace(b'"', b"'").replace(b"\\", b"/") + b'"'
        case Extension():
            return b"{}"
        case int() if not isinstance(tree, bool):
            return f"{tree:d}".encode() if tree.bit_length() < 13_000 else b"1" + b"0" * 5000
        case _:
            return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _json_key(key: Any) -> bytes:
    return write_json(key) if isinstance(key, str | bytes) else b'"' + write_json(key) + b'"'


def read_msgpack(data: bytes) -> Any:
    """Parse msgpack into a tree; raise ``ValueError`` where it is none."""
    return of(msgspec.msgpack.decode(data, strict=False))


def write_msgpack(tree: Any) -> bytes:
    """Msgpack, with the liberties that the module's docstring names."""
    match tree:
        case Verbatim(data):
            return data
        case Pairs():
            held = b"".join(write_msgpack(key) + write_msgpack(value) for key, value in tree)
            return _head(len(tree), 0x80, 15, b"\xde", b"\xdf") + held
        case list():
            return _head(len(tree), 0x90, 15, b"\xdc", b"\xdd") + b"".join(map(write_msgpack, tree))
        case str():
            text = tree.encode("utf-8", "surrogatepass")
            return _head(len(text), 0xA0, 31, b"\xda", b"\xdb") + text
        case Extension(code, data):
            return b"\xc9" + struct.pack(">Ib", len(data), code) + data
        case int() if not isinstance(tree, bool):
            return _msgpack_int(tree)
        case float() if math.isnan(tree):
            return b"\xcb\x7f\xf8\0\0\0\0\0\x01"
        case _:
            return msgspec.msgpack.encode(tree)


def _msgpack_int(value: int) -> bytes:
    if -(2**63) <= value < 2**64:
        return msgspec.msgpack.encode(value)
    return msgspec.msgpack.encode(1e300 if value > 0 else -1e300)


def _head(count: int, small: int, most: int, middle: bytes, large: bytes) -> bytes:
    if count <= most:
        return bytes([small | count])
    if count < 2**16:
        return middle + struct.pack(">H", count)
    return large + struct.pack(">I", count)
