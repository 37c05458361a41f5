"""Verifies signatures in the OpenSSF model-signing format. Knows no private keys.

The file is a sigstore bundle v0.3 around a DSSE envelope, whose payload is an in-toto statement
with the predicate ``https://model_signing/signature/v1.0``. Sources: the DSSE protocol 1.0.2,
in-toto attestation v1, OpenSSF model-signing specification v1.0.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_core.bundle.manifest import MANIFEST, MAX_FILES, PROVENANCE, SIGNATURE, Sha256
from edge_core.errors import InvalidConfiguration, UntrustedBundle, quoted

MAX_SIGNATURE_BYTES = 1024 * 1024
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature, base64, and a name of its key that nothing rests on."""

    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A DSSE envelope around an in-toto statement, base64."""

    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[list[EnvelopeSignature], msgspec.Meta(min_length=1, max_length=8)]


class _PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    hint: str


class _Material(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    public_key: _PublicKey
    tlog_entries: list[msgspec.Raw] = []


class _SigstoreBundle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: Envelope


class _Resource(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    algorithm: Literal["sha256"]
    digest: Sha256


class _Serialization(msgspec.Struct, frozen=True, kw_only=True):
    method: Literal["files"]
    hash_type: Literal["sha256"]
    allow_symlinks: Literal[False]
    ignore_paths: list[str] = []


class _Predicate(msgspec.Struct, frozen=True, kw_only=True):
    serialization: _Serialization
    resources: Annotated[list[_Resource], msgspec.Meta(min_length=1, max_length=MAX_FILES + 1)]


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: dict[Literal["sha256"], Sha256]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "_type"}):
    kind: Literal["https://in-toto.io/Statement/v1"]
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = msgspec.field(
        name="predicateType"
    )
    predicate: _Predicate


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified signature says: whose bytes were signed, and which."""

    name: str
    subject_sha256: str
    resources: dict[str, str]
    """Path below the bundle folder -> sha256."""
    key_hint: str
    """Sha256 of the PEM of the public key that made the signature."""
    beside: list[str] = []
    """Paths that the signature leaves out: they stand beside what is signed."""


def load_public_key(pem: bytes, source: str = "the key") -> ec.EllipticCurvePublicKey:
    """Read a PEM public key; raise :class:`InvalidConfiguration` unless it is EC P-256.

    Args:
        pem: the key's bytes.
        source: how an error names them.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"{source} is not a PEM public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InvalidConfiguration(f"{source} has to be EC P-256 (secp256r1)")
    return key


def key_hint(key: ec.EllipticCurvePublicKey) -> str:
    """Sha256 of the key's PEM, by which a signature names the key that made it."""
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def pre_authentication_encoding(payload: bytes) -> bytes:
    """Return the bytes that are really signed (DSSE PAE)."""
    return b"DSSEv1 %d %b %d %b" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def statement_payload(name: str, resources: Mapping[str, str]) -> bytes:
    """Return the in-toto statement over every file of a bundle folder but its signatures.

    ``resources`` maps paths to sha256; the subject's digest covers their digests in the order
    of the paths. A statement about a manifest names its provenance as left out, so that nobody
    can take it away unseen.
    """
    ordered = sorted(resources.items())
    overall = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered))
    beside = [SIGNATURE, PROVENANCE] if MANIFEST in resources else [SIGNATURE]
    statement = _Statement(
        kind=STATEMENT_TYPE,
        subject=[_Subject(name=name, digest={"sha256": overall.hexdigest()})],
        predicate_type=PREDICATE_TYPE,
        predicate=_Predicate(
            serialization=_Serialization(
                method="files", hash_type="sha256", allow_symlinks=False, ignore_paths=beside
            ),
            resources=[
                _Resource(name=path, algorithm="sha256", digest=digest) for path, digest in ordered
            ],
        ),
    )
    return msgspec.json.encode(statement)


def envelope(payload: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """Put payload and signature into the signature file's bytes."""
    bundle = _SigstoreBundle(
        media_type=MEDIA_TYPE,
        verification_material=_Material(public_key=_PublicKey(hint=key_hint(key))),
        dsse_envelope=Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=[EnvelopeSignature(sig=base64.b64encode(signature).decode())],
        ),
    )
    return msgspec.json.encode(bundle)


def verify(signature: bytes, keys: Sequence[ec.EllipticCurvePublicKey]) -> Statement:
    """Check a signature file against the trusted keys; only then read what it says.

    Raises:
        UntrustedBundle: too large, malformed, or made by none of ``keys``.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise UntrustedBundle(
            f"signature has {len(signature)} bytes; the limit is {MAX_SIGNATURE_BYTES}"
        )
    try:
        bundle = msgspec.json.decode(signature, type=_SigstoreBundle)
        signed = bundle.dsse_envelope
        payload = base64.b64decode(signed.payload, validate=True)
        signatures = [base64.b64decode(entry.sig, validate=True) for entry in signed.signatures]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UntrustedBundle(
            f"signature file is not a sigstore bundle v0.3: {quoted(error)}"
        ) from error
    hint = signer(pre_authentication_encoding(payload), signatures, keys)
    if hint is None:
        claimed = bundle.verification_material.public_key.hint[:16]
        raise UntrustedBundle(
            f"signed by key {claimed!r}, which is none of the {len(keys)} trusted keys; the "
            "bundle is foreign or was altered"
        )
    return _parse_statement(payload, hint)


def signer(
    message: bytes, signatures: Sequence[bytes], keys: Sequence[ec.EllipticCurvePublicKey]
) -> str | None:
    """Name the key, by :func:`key_hint`, that made one of the signatures; none if no key did."""
    for key in keys:
        for signature in signatures:
            try:
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return key_hint(key)
    return None


def _parse_statement(payload: bytes, hint: str) -> Statement:
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedBundle(
            f"the signed statement is not one of a model: {quoted(error)}"
        ) from error
    resources = {entry.name: entry.digest for entry in statement.predicate.resources}
    if len(resources) != len(statement.predicate.resources):
        raise UntrustedBundle("the signed statement names a file twice")
    subject = statement.subject[0]
    overall = hashlib.sha256(
        b"".join(bytes.fromhex(entry.digest) for entry in statement.predicate.resources)
    ).hexdigest()
    if subject.digest.get("sha256") != overall:
        raise UntrustedBundle("the signed statement's own digests disagree")
    return Statement(
        name=subject.name,
        subject_sha256=overall,
        resources=resources,
        key_hint=hint,
        beside=statement.predicate.serialization.ignore_paths,
    )
