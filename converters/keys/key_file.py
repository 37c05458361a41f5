"""Private keys in files: PKCS#8 PEM, encrypted with a passphrase, readable by their owner only."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from securesystemslib.signer import CryptoSigner

from converters.keys.access import PASSPHRASE, Secret, nothing
from edge_core import durable
from edge_core.errors import InvalidConfiguration

MAX_KEY_BYTES = 64 * 1024


def new_tuf_key() -> CryptoSigner:
    """A new Ed25519 key for one of TUF's roles."""
    return CryptoSigner(ed25519.Ed25519PrivateKey.generate())


def write(path: Path, key: PrivateKeyTypes, passphrase: bytes | None) -> None:
    """Write a new key file; nothing is overwritten.

    Raises:
        InvalidConfiguration: there is such a file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = _pem(key, passphrase)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise already_there(path) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    durable.sync_folder(path.parent)


def write_signer(path: Path, signer: CryptoSigner, passphrase: bytes | None) -> None:
    """As :func:`write`, of a key that signs TUF metadata."""
    write(path, serialization.load_pem_private_key(signer.private_bytes, None), passphrase)


def read(path: Path, secret: Secret = nothing, *, made_by: str) -> PrivateKeyTypes:
    """Read a private key; its passphrase is asked for only where the file is encrypted.

    Raises:
        InvalidConfiguration: no such file, no private key, no passphrase or a wrong one.
    """
    data = _content(path, made_by)
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:
        pass  # it is encrypted
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"{path} is not a private key in PEM form") from error
    passphrase = secret(f"passphrase of {path}")
    if passphrase is None:
        raise InvalidConfiguration(
            f"{path} is encrypted: name a file that holds its passphrase with --passphrase-file, "
            f"or set {PASSPHRASE}"
        )
    try:
        return serialization.load_pem_private_key(data, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"the passphrase does not open {path}") from error


def already_there(path: Path) -> InvalidConfiguration:
    """What is said before a key would be lost."""
    return InvalidConfiguration(
        f"{path} exists already; name another folder, or move the old key away"
    )


def _content(path: Path, made_by: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the key {path}: {error.strerror}; make one with '{made_by}'"
        ) from error
    if len(data) > MAX_KEY_BYTES:
        raise InvalidConfiguration(
            f"{path} is not a private key: it has over {MAX_KEY_BYTES} bytes"
        )
    return data


def _pem(key: PrivateKeyTypes, passphrase: bytes | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
