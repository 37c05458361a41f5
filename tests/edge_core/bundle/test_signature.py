"""What the verifier accepts, and that everything else is refused without another error."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from edge_core.bundle import signature
from edge_core.errors import InvalidConfiguration, UntrustedBundle
from tests.edge_core.bundle.conftest import StatementKey

RESOURCES = {"a-b/c": "1" * 64, "a/b": "2" * 64, "manifest.json": "3" * 64}


def altered(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def test_a_signature_says_what_was_signed(key: StatementKey) -> None:
    statement = signature.verify(key.statement(RESOURCES), [key.public])
    assert statement.resources == RESOURCES
    assert statement.name == "tiny"
    assert statement.key_hint == signature.key_hint(key.public)
    overall = hashlib.sha256(b"".join(bytes.fromhex(d) for _, d in sorted(RESOURCES.items())))
    assert statement.subject_sha256 == overall.hexdigest()


def test_one_of_several_trusted_keys_is_enough_and_is_told(key: StatementKey) -> None:
    others = [StatementKey().public for _ in range(2)]
    statement = signature.verify(key.statement(RESOURCES), [*others, key.public])
    assert statement.key_hint == signature.key_hint(key.public)


def test_the_encoding_is_the_one_of_the_dsse_specification() -> None:
    encoded = signature.pre_authentication_encoding(b"hello")
    assert encoded == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


def test_a_foreign_key_is_refused_and_named(key: StatementKey) -> None:
    foreign = StatementKey()
    hint = signature.key_hint(foreign.public)[:16]
    with pytest.raises(UntrustedBundle, match=f"key '{hint}', which is none of the 1 trusted"):
        signature.verify(foreign.statement(RESOURCES), [key.public])
    with pytest.raises(UntrustedBundle, match="none of the 0 trusted"):
        signature.verify(key.statement(RESOURCES), [])


def test_a_refusal_is_one_line_even_if_the_key_hint_is_hostile(key: StatementKey) -> None:
    def change(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["publicKey"]["hint"] = "\x1b[2J\nall is well"
        document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(b"x").decode()

    with pytest.raises(UntrustedBundle) as refused:
        signature.verify(altered(key.statement(RESOURCES), change), [key.public])
    assert str(refused.value).isprintable()


def test_any_other_payload_under_the_same_signature_is_refused(key: StatementKey) -> None:
    other = signature.statement_payload("tiny", RESOURCES | {"a/b": "4" * 64})

    def swap(document: dict[str, Any]) -> None:
        document["dsseEnvelope"]["payload"] = base64.b64encode(other).decode()

    with pytest.raises(UntrustedBundle, match="foreign or was altered"):
        signature.verify(altered(key.statement(RESOURCES), swap), [key.public])


def test_the_payload_is_not_read_before_its_signature_holds(key: StatementKey) -> None:
    def change(document: dict[str, Any]) -> None:
        document["dsseEnvelope"]["payload"] = base64.b64encode(b"[" * 100_000).decode()

    with pytest.raises(UntrustedBundle, match="foreign or was altered"):
        signature.verify(altered(key.statement(RESOURCES), change), [key.public])


def _statement(change: Callable[[dict[str, Any]], None]) -> bytes:
    return altered(signature.statement_payload("tiny", RESOURCES), change)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"_type": "\xff"}',
        _statement(lambda d: d.update(_type="https://in-toto.io/Statement/v2")),
        _statement(lambda d: d.update(predicateType="https://model_signing/signature/v2.0")),
        _statement(lambda d: d.update(predicateType="https://slsa.dev/provenance/v1")),
        _statement(lambda d: d["subject"].append(d["subject"][0])),
        _statement(lambda d: d["subject"][0]["digest"].update(sha256="0" * 64)),
        _statement(lambda d: d["predicate"]["resources"].append(d["predicate"]["resources"][0])),
        _statement(lambda d: d["predicate"]["resources"].reverse()),
        _statement(lambda d: d["predicate"]["resources"][0].update(algorithm="md5")),
        _statement(lambda d: d["predicate"]["resources"][0].update(digest="0" * 63)),
        _statement(lambda d: d["predicate"]["resources"].clear()),
        _statement(lambda d: d["predicate"]["serialization"].update(method="shards")),
        _statement(lambda d: d["predicate"]["serialization"].update(allow_symlinks=True)),
        _statement(lambda d: d["predicate"].update(resources=d["predicate"]["resources"] * 100)),
    ],
)
def test_a_well_signed_statement_about_something_else_is_refused(
    key: StatementKey, payload: bytes
) -> None:
    with pytest.raises(UntrustedBundle, match="signed statement"):
        signature.verify(key.sign(payload), [key.public])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"),
        lambda d: d["dsseEnvelope"].update(payloadType="text/plain"),
        lambda d: d["dsseEnvelope"].update(signatures=[]),
        lambda d: d["dsseEnvelope"].update(signatures=d["dsseEnvelope"]["signatures"] * 9),
        lambda d: d["dsseEnvelope"].update(payload="not base64!"),
        lambda d: d["dsseEnvelope"].update(payload="ünicode"),
        lambda d: d.pop("verificationMaterial"),
    ],
)
def test_an_envelope_of_another_kind_is_refused(
    key: StatementKey, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(UntrustedBundle, match=r"not a sigstore bundle v0\.3"):
        signature.verify(altered(key.statement(RESOURCES), change), [key.public])


def test_a_signature_over_the_limit_is_refused_unread(key: StatementKey) -> None:
    with pytest.raises(UntrustedBundle, match="the limit is"):
        signature.verify(b"{" * (signature.MAX_SIGNATURE_BYTES + 1), [key.public])


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(UntrustedBundle):
        signature.verify(data, [])


@pytest.fixture(scope="module")
def signed(key: StatementKey) -> bytes:
    return key.statement(RESOURCES)


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_nothing_that_was_signed(
    key: StatementKey, signed: bytes, position: float, bit: int
) -> None:
    flipped = bytearray(signed)
    flipped[int(position * len(flipped))] ^= 1 << bit
    try:
        statement = signature.verify(bytes(flipped), [key.public])
    except UntrustedBundle:
        return
    # A flip in the unsigned key hint or in a field that nobody reads may pass.
    assert statement.resources == RESOURCES


def _pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff\x00",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        _pem(ed25519.Ed25519PrivateKey.generate()),
        _pem(ec.generate_private_key(ec.SECP384R1())),
        _pem(ec.generate_private_key(ec.SECP256K1())),
    ],
    ids=["nothing", "noise", "no key", "ed25519", "p384", "secp256k1"],
)
def test_only_p256_public_keys_are_read(pem: bytes) -> None:
    with pytest.raises(InvalidConfiguration):
        signature.load_public_key(pem)


def test_a_real_bundle_is_signed_file_by_file(
    bundle: Path, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    statement = signature.verify((bundle / "model.sig").read_bytes(), [bundle_key])
    assert statement.resources == {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file() and path.name not in ("model.sig", "provenance.sig")
    }
    assert statement.beside == ["model.sig", "provenance.sig"]
