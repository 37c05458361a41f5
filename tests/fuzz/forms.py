"""How the bytes of one part of an input are built, so that they can be changed inside."""

import hashlib
import io
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.fuzz import trees
from tests.fuzz.trees import Pairs

MOST_UNPACKED = 64 * 1024 * 1024


class Form(NamedTuple):
    """Bytes <-> a tree. Both directions may raise ``ValueError``: then bytes alone are changed."""

    name: str
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]


def _no_tree(data: bytes) -> Any:
    raise ValueError("bytes without a form that is known here")


def _lines(data: bytes) -> Any:
    return data.split(b"\n")


def _joined(tree: Any) -> bytes:
    return b"\n".join(_plain(line) for line in tree)


def _plain(value: Any) -> bytes:
    return value if isinstance(value, bytes) else trees.write_json(value)


def _read_zip(data: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            return Pairs([name, opened.read(name)] for name in opened.namelist())
    except (EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("not a zip file") from error


def _write_zip(tree: Any) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w") as opened:
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, data in tree:
            info = zipfile.ZipInfo(str(name).replace("\0", "?")[:1000])
            opened.writestr(info, _plain(data))
    return content.getvalue()


def _read_memory(data: bytes) -> Any:
    try:
        reader = zlib.decompressobj()
        return trees.read_msgpack(reader.decompress(data[32:], MOST_UNPACKED))
    except zlib.error as error:
        raise ValueError("not compressed") from error


def _write_memory(tree: Any) -> bytes:
    body = zlib.compress(trees.write_msgpack(tree), 1)
    return hashlib.sha256(body).digest() + body


def _read_tar(data: bytes) -> Any:
    """Headers and contents of the members, as far as blocks of 512 bytes tell."""
    blocks = [data[at : at + tarfile.BLOCKSIZE] for at in range(0, len(data), tarfile.BLOCKSIZE)]
    if not 2 <= len(blocks) <= 4096:
        raise ValueError("not a tar")
    return blocks


def _write_tar(tree: Any) -> bytes:
    """Blocks again; where one looks like a header, its checksum is made to fit."""
    blocks = []
    for block in map(_plain, tree):
        if block[257:262] == b"ustar" and len(block) == tarfile.BLOCKSIZE:
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            block = block[:148] + b"%06o\0 " % total + block[156:]
        blocks.append(block)
    data = b"".join(blocks)
    return data + bytes(-len(data) % tarfile.RECORDSIZE)


BYTES = Form("bytes", _no_tree, _plain)
JSON = Form("json", trees.read_json, trees.write_json)
MSGPACK = Form("msgpack", trees.read_msgpack, trees.write_msgpack)
LINES = Form("lines", _lines, _joined)
ZIP = Form("zip", _read_zip, _write_zip)
MEMORY = Form("memory", _read_memory, _write_memory)
TAR = Form("tar", _read_tar, _write_tar)
NESTED = (JSON, MSGPACK)
"""What bytes inside a tree may be, too."""
