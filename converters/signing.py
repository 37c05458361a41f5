"""The only code that touches a private statement key (EC P-256). No network."""

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from converters import attesting
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


def generate_key(folder: Path) -> Path:
    """Make a key pair in ``folder`` and return the private key's path.

    Raises:
        InvalidConfiguration: there is a key already; it is never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / PRIVATE_KEY
    public_path = folder / PUBLIC_KEY
    if public_path.exists():
        raise _refuse_to_overwrite(public_path)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise _refuse_to_overwrite(path) from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(pem)
        stream.flush()
        os.fsync(stream.fileno())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    durable.write_bytes(public_path, public)
    return path


def _refuse_to_overwrite(path: Path) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{path} exists already; name another folder, or move the old key away"
    )


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a PEM private key; raise :class:`InvalidConfiguration` unless it is EC P-256."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the key {path}: {error.strerror}; make one with 'serinus-convert keygen'"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"{path} is not an unencrypted PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise InvalidConfiguration(f"{path} is not an EC P-256 key")
    return key


def sign_folder(folder: Path, key: Path) -> Path:
    """Sign a bundle folder: write ``model.sig`` and ``provenance.sig`` into it."""
    manifest = folders.read(folder)
    folders.check(folder, manifest)
    resources = {entry.path: entry.sha256 for entry in manifest.files}
    path = sign_files(folder, f"{manifest.model}-{manifest.version}", resources, MANIFEST, key)
    _attest(folder, manifest, key)
    return path


def _attest(folder: Path, manifest: Manifest, key: Path) -> None:
    """Write ``provenance.sig``, by the key that signed the folder."""
    private = load_private_key(key)
    digest = sha256_file(folder / MANIFEST, limit=MAX_MANIFEST_BYTES).sha256
    payload = provenance.payload(digest, attesting.predicate(manifest, digest))
    signed = private.sign(signature.pre_authentication_encoding(payload), ec.ECDSA(hashes.SHA256()))
    data = provenance.envelope(payload, signed, private.public_key())
    durable.write_bytes(folder / PROVENANCE, data)


def sign_files(folder: Path, name: str, resources: Mapping[str, str], head: str, key: Path) -> Path:
    """Sign files by their digests, and the file ``head`` that lists them; write ``model.sig``."""
    private = load_private_key(key)
    digest = sha256_file(folder / head, limit=MAX_MANIFEST_BYTES).sha256
    payload = signature.statement_payload(name, {**resources, head: digest})
    signed = private.sign(signature.pre_authentication_encoding(payload), ec.ECDSA(hashes.SHA256()))
    path = folder / SIGNATURE
    durable.write_bytes(path, signature.envelope(payload, signed, private.public_key()))
    return path
