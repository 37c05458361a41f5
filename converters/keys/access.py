"""Where passphrases and PINs come from: a file, the environment, or the person at the terminal.

The only reader of the environment for anything about keys.
"""

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_core.errors import InvalidConfiguration

PASSPHRASE = "SERINUS_KEY_PASSPHRASE"
MODULE = "SERINUS_PKCS11_MODULE"
MIN_PASSPHRASE_BYTES = 16
"""PKCS#8 as it is written here costs a thief 2,048 rounds a guess: length has to do the rest."""
MAX_PASSPHRASE_BYTES = 1000

Secret = Callable[[str], bytes | None]
"""What a secret opens -> the secret; none where nobody gives one."""


def nothing(_what: str) -> bytes | None:
    """Give no secret: for files that are not encrypted."""
    return None


class KeyAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a key may need beside its place."""

    secret: Secret = nothing
    module: str | None = None
    """PKCS#11 module of keys whose URI names none."""


def of_person(passphrase_file: Path | None) -> KeyAccess:
    """Secrets from a file, else the environment, else asked at the terminal when needed."""
    found = _given(passphrase_file)
    return KeyAccess(
        secret=_asked if found is None else lambda _what: found,
        module=os.environ.get(MODULE),
    )


def for_new_key(passphrase_file: Path | None, *, without: bool, what: str) -> bytes | None:
    """The passphrase of a key that is being made, asked twice; none only where asked for.

    Raises:
        InvalidConfiguration: there is none, it is too short, or the two differ.
    """
    if without:
        return None
    found = _given(passphrase_file)
    if found is None:
        found = _asked(f"new passphrase for {what}")
        if found is not None and found != _asked("the same passphrase again"):
            raise InvalidConfiguration("the two passphrases differ; nothing was made")
    if found is None:
        raise InvalidConfiguration(
            f"no passphrase for {what}: run this at a terminal, name a file with --passphrase-file "
            f"or set {PASSPHRASE}; --no-passphrase writes keys that whoever reads the file can use"
        )
    if len(found) < MIN_PASSPHRASE_BYTES:
        raise InvalidConfiguration(
            f"a passphrase has at least {MIN_PASSPHRASE_BYTES} characters: take six random words"
        )
    return found


def read_passphrase(path: Path) -> bytes:
    """First line of a file.

    Raises:
        InvalidConfiguration: it cannot be read, is empty or too long.
    """
    try:
        with path.open("rb") as stream:
            line = stream.readline(MAX_PASSPHRASE_BYTES + 2).rstrip(b"\r\n")
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the passphrase file {path}: {error.strerror}"
        ) from error
    if not 0 < len(line) <= MAX_PASSPHRASE_BYTES:
        raise InvalidConfiguration(
            f"the first line of {path} is no passphrase: it has 1 to {MAX_PASSPHRASE_BYTES} bytes"
        )
    return line


def _given(passphrase_file: Path | None) -> bytes | None:
    if passphrase_file is not None:
        return read_passphrase(passphrase_file)
    said = os.environ.get(PASSPHRASE)
    return said.encode() if said else None


def _asked(what: str) -> bytes | None:
    if not sys.stdin.isatty():
        return None
    try:
        return getpass.getpass(f"{what}: ").encode() or None
    except EOFError:
        return None
