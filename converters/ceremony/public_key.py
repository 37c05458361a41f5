"""The public half of a key as it is handed over: the key, who holds it, and its fingerprint."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import Key, SSlibKey

from edge_core import durable
from edge_core.errors import InvalidConfiguration

SUFFIX: Final = ".pub.json"
FORMAT: Final = "serinus-public-key-1"
HOLDER: Final = "x-serinus-holder"
"""In TUF's metadata, beside the key: TUF leaves such fields to whoever writes them."""
MAX_FILE_BYTES: Final = 16 * 1024
KINDS: Final = ("ed25519", "ecdsa")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    holder: str
    key: dict[str, Any]


def check_name(name: str) -> str:
    """A holder's name; raise :class:`InvalidConfiguration` where it is none."""
    if not NAME.fullmatch(name):
        raise InvalidConfiguration(
            f"{name[:80]!r} is not a holder's name: write small letters, digits and . _ -, such as "
            "ada or releases-2027"
        )
    return name


def held_by(key: SSlibKey, holder: str) -> SSlibKey:
    """The key with its holder's name on it."""
    named = {HOLDER: check_name(holder)}
    return SSlibKey(key.keyid, key.keytype, key.scheme, dict(key.keyval), named)


def write(path: Path, key: SSlibKey) -> None:
    """Write the file to hand over; nothing is overwritten."""
    if path.exists():
        raise InvalidConfiguration(f"{path} exists already; move it away, or choose another name")
    public = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    content = {"format": FORMAT, "holder": holder_of(key), "key": public}
    durable.write_bytes(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def read(path: Path) -> SSlibKey:
    """Read what was handed over.

    Raises:
        InvalidConfiguration: it cannot be read or is not a public key of a kind that is used.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it has over {MAX_FILE_BYTES} bytes")
        found = msgspec.json.decode(data, type=_File)
        if found.format != FORMAT:
            raise ValueError(f"its format is {found.format[:40]!r}, not {FORMAT}")
        key = canonical(Key.from_dict("", dict(found.key)))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidConfiguration(
            f"{path} is not a public key to hand over, as serinus-convert root keygen writes it: "
            f"{str(error)[:200]}"
        ) from error
    return held_by(key, found.holder)


def canonical(key: Key) -> SSlibKey:
    """The same key in the one form that it is written in, so that none counts twice.

    Raises:
        ValueError: it is of another kind, or no key at all.
    """
    value = key.keyval.get("public")
    if key.keytype not in KINDS or not isinstance(value, str):
        raise ValueError(f"keys are {' or '.join(KINDS)}")
    try:
        public = (
            ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(value))
            if key.keytype == "ed25519"
            else load_pem_public_key(value.encode())
        )
        return SSlibKey.from_crypto(public, scheme=key.scheme)
    except (SigningError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error


def holder_of(key: Key) -> str:
    """Who holds it, by the metadata; ``unnamed`` where that says nothing."""
    name = key.unrecognized_fields.get(HOLDER)
    return name if isinstance(name, str) and NAME.fullmatch(name) else "unnamed"


def fingerprint(digest: str) -> str:
    """The first 128 bits of a digest, in groups that people read to each other."""
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def told(key: Key) -> str:
    """Holder and fingerprint."""
    return f"{holder_of(key)}  {fingerprint(key.keyid)}"
