"""Verifies ``provenance.sig``: what made a bundle, as other people's tools read it.

One DSSE envelope around an in-toto statement with SLSA provenance over the manifest's digest.
Sources: the DSSE protocol 1.0.2, in-toto attestation v1, SLSA v1.0. Knows no private keys.
"""

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from edge_core.bundle import signature as signatures
from edge_core.bundle.manifest import MANIFEST, MAX_PROVENANCE_BYTES, Sha256
from edge_core.bundle.signature import PAYLOAD_TYPE, STATEMENT_TYPE, Envelope, EnvelopeSignature
from edge_core.errors import UntrustedBundle, quoted

MAX_DEPENDENCIES = 256
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:serinus:build:v1"
"""``docs/provenance.md`` says what its parameters mean."""

T = TypeVar("T")


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Unknown fields are passed over, as in-toto and SLSA ask for."""


class Resource(_Part, frozen=True, kw_only=True):
    """Something that went in or came out (in-toto's ResourceDescriptor)."""

    name: str
    uri: str = ""
    digest: dict[str, str] = {}
    annotations: dict[str, Any] = {}


Resources = Annotated[list[Resource], msgspec.Meta(max_length=MAX_DEPENDENCIES)]


class BuildDefinition(_Part, frozen=True, kw_only=True):
    """What was asked for, and from what."""

    build_type: Literal["urn:serinus:build:v1"]
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any] = {}
    resolved_dependencies: Resources = []


class Builder(_Part, frozen=True, kw_only=True):
    """Who built."""

    id: str
    version: dict[str, str] = {}


class Invocation(_Part, frozen=True, kw_only=True):
    """Which build it was. Without times: they would make every build another one."""

    invocation_id: str


class RunDetails(_Part, frozen=True, kw_only=True):
    """How it was built."""

    builder: Builder
    metadata: Invocation
    byproducts: Resources = []


class Predicate(_Part, frozen=True, kw_only=True):
    """SLSA's provenance."""

    build_definition: BuildDefinition
    run_details: RunDetails


class _Digest(msgspec.Struct, frozen=True, kw_only=True):
    sha256: Sha256


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["manifest.json"]
    digest: _Digest


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "_type"}):
    kind: Literal["https://in-toto.io/Statement/v1"]
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = msgspec.field(name="predicateType")
    predicate: Predicate


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified file says."""

    predicate: Predicate
    key_hint: str
    """Sha256 of the PEM of the public key that signed it."""


def payload(manifest_sha256: str, predicate: Predicate) -> bytes:
    """The statement about one manifest; the same bytes every time."""
    statement = _Statement(
        kind=STATEMENT_TYPE,
        subject=[_Subject(name=MANIFEST, digest=_Digest(sha256=manifest_sha256))],
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    return msgspec.json.encode(statement, order="sorted")


def envelope(payload: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """Put payload and signature into the file's bytes."""
    signed = EnvelopeSignature(
        sig=base64.b64encode(signature).decode(), keyid=signatures.key_hint(key)
    )
    return msgspec.json.encode(
        Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=[signed],
        )
    )


def verify(
    data: bytes, manifest_sha256: str, keys: Sequence[ec.EllipticCurvePublicKey]
) -> Attested:
    """Check ``provenance.sig`` against the trusted keys and the manifest; only then read it.

    Raises:
        UntrustedBundle: too large, malformed, made by none of ``keys``, or of another bundle.
    """
    if len(data) > MAX_PROVENANCE_BYTES:
        raise UntrustedBundle(
            f"provenance has {len(data)} bytes; the limit is {MAX_PROVENANCE_BYTES}"
        )
    try:
        signed = _decoded(data, Envelope)
        payload = base64.b64decode(signed.payload, validate=True)
        found = [base64.b64decode(entry.sig, validate=True) for entry in signed.signatures]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UntrustedBundle(f"provenance is not a DSSE envelope: {quoted(error)}") from error
    hint = signatures.signer(signatures.pre_authentication_encoding(payload), found, keys)
    if hint is None:
        raise UntrustedBundle(
            f"provenance is signed by key {signed.signatures[0].keyid[:16]!r}, which is none of "
            f"the {len(keys)} trusted keys; it is foreign or was altered"
        )
    try:
        statement = _decoded(payload, _Statement)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UntrustedBundle(
            f"the signed provenance is not one of a bundle: {quoted(error)}"
        ) from error
    if statement.subject[0].digest.sha256 != manifest_sha256:
        raise UntrustedBundle("provenance is that of another bundle: its manifest is not this one")
    return Attested(predicate=statement.predicate, key_hint=hint)


def _decoded(data: bytes, kind: type[T]) -> T:
    """Decode JSON in which no name comes twice: readers disagree about which one counts."""
    return msgspec.convert(json.loads(data.decode(), object_pairs_hook=_unique), type=kind)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice!r} comes twice")
    return found
