"""The only code that signs statements: who built a bundle (EC P-256). No network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from converters import attesting
from converters.keys import key_file, pkcs11_uri, token
from converters.keys.access import KeyAccess
from edge_core import durable
from edge_core.bundle import folder as folders
from edge_core.bundle import provenance, signature
from edge_core.bundle.digest import sha256_file
from edge_core.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROVENANCE,
    SIGNATURE,
    Manifest,
)
from edge_core.errors import InvalidConfiguration

PRIVATE_KEY = "statement.pem"
PUBLIC_KEY = "statement.pub.pem"
CURVE = "secp256r1"


class StatementKey(Protocol):
    """Signs statements, wherever its private half is."""

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """On P-256."""

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, as DER."""


class _FileKey:
    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = private.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data, ec.ECDSA(hashes.SHA256()))


def generate_key(folder: Path, passphrase: bytes | None = None) -> Path:
    """Make a key pair in ``folder`` and return the private key's path.

    Raises:
        InvalidConfiguration: there is a key already; it is never overwritten.
    """
    path = folder / PRIVATE_KEY
    check_free(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    key_file.write(path, key, passphrase)
    write_public_key(folder, _FileKey(key))
    return path


def check_free(folder: Path) -> None:
    """Raise :class:`InvalidConfiguration` where a folder has a statement key already."""
    for path in (folder / PRIVATE_KEY, folder / PUBLIC_KEY):
        if path.exists():
            raise key_file.already_there(path)


def write_public_key(folder: Path, key: StatementKey) -> Path:
    """Write the public half, which devices pin; nothing is overwritten."""
    path = folder / PUBLIC_KEY
    if path.exists():
        raise key_file.already_there(path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = key.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    durable.write_bytes(path, pem)
    return path


def open_key(place: str | Path, access: KeyAccess) -> StatementKey:
    """Open the statement key at a path or ``pkcs11:`` URI.

    Raises:
        InvalidConfiguration: there is no such key, it does not open, or is not EC P-256.
    """
    if not pkcs11_uri.is_one(str(place)):
        return _FileKey(load_private_key(Path(place), access))
    found = token.open_key(str(place), access)
    if found.public.curve.name != CURVE:
        raise InvalidConfiguration(f"{place} is not an EC P-256 key")
    return found


def load_private_key(path: Path, access: KeyAccess | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a PEM private key; raise :class:`InvalidConfiguration` unless it is EC P-256."""
    secret = (access or KeyAccess()).secret
    key = key_file.read(path, secret, made_by="serinus-convert keygen")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != CURVE:
        raise InvalidConfiguration(f"{path} is not an EC P-256 key")
    return key


def sign_folder(folder: Path, key: Path | StatementKey) -> Path:
    """Sign a bundle folder: write ``model.sig`` and ``provenance.sig`` into it.

    ``key``: opened, or the path of one that is not encrypted.
    """
    manifest = folders.read(folder)
    folders.check(folder, manifest)
    resources = {entry.path: entry.sha256 for entry in manifest.files}
    opened = open_key(key, KeyAccess()) if isinstance(key, Path) else key
    path = sign_files(folder, f"{manifest.model}-{manifest.version}", resources, MANIFEST, opened)
    _attest(folder, manifest, opened)
    return path


def _attest(folder: Path, manifest: Manifest, key: StatementKey) -> None:
    """Write ``provenance.sig``, by the key that signed the folder."""
    digest = sha256_file(folder / MANIFEST, limit=MAX_MANIFEST_BYTES).sha256
    payload = provenance.payload(digest, attesting.predicate(manifest, digest))
    signed = key.sign(signature.pre_authentication_encoding(payload))
    data = provenance.envelope(payload, signed, key.public)
    durable.write_bytes(folder / PROVENANCE, data)


def sign_files(
    folder: Path, name: str, resources: Mapping[str, str], head: str, key: Path | StatementKey
) -> Path:
    """Sign files by their digests, and the file ``head`` that lists them; write ``model.sig``."""
    opened = open_key(key, KeyAccess()) if isinstance(key, Path) else key
    digest = sha256_file(folder / head, limit=MAX_MANIFEST_BYTES).sha256
    payload = signature.statement_payload(name, {**resources, head: digest})
    signed = opened.sign(signature.pre_authentication_encoding(payload))
    path = folder / SIGNATURE
    durable.write_bytes(path, signature.envelope(payload, signed, opened.public))
    return path
