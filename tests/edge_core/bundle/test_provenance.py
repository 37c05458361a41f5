"""What the verifier of provenance accepts, and that all else is refused in one line."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from converters import attesting
from edge_core.bundle import manifest as manifests
from edge_core.bundle import provenance, signature
from edge_core.bundle.digest import sha256_bytes
from edge_core.errors import UntrustedBundle
from tests.edge_core.bundle.conftest import PREDICATE, StatementKey

MANIFEST = b"a manifest"
DIGEST = sha256_bytes(MANIFEST)
PAYLOAD = provenance.payload(DIGEST, PREDICATE)
Change = Callable[[dict[str, Any]], None]


def changed(data: bytes, change: Change) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def refusal(data: bytes, *keys: ec.EllipticCurvePublicKey) -> str:
    with pytest.raises(UntrustedBundle) as refused:
        provenance.verify(data, DIGEST, keys)
    said = str(refused.value)
    assert said.isprintable()
    return said


def test_provenance_says_what_was_signed_and_by_whom(key: StatementKey) -> None:
    attested = provenance.verify(key.provenance(MANIFEST), DIGEST, [key.public])
    assert attested.predicate == PREDICATE
    assert attested.key_hint == signature.key_hint(key.public)


def test_the_statement_is_the_manifests_and_the_same_every_time(
    bundle: Path, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    data = (bundle / manifests.MANIFEST).read_bytes()
    manifest, digest = manifests.parse(data), sha256_bytes(data)
    said = provenance.verify((bundle / manifests.PROVENANCE).read_bytes(), digest, [bundle_key])
    assert said.predicate == attesting.predicate(manifest, digest)
    payload = json.loads((bundle / manifests.PROVENANCE).read_bytes())["payload"]
    assert base64.b64decode(payload) == provenance.payload(digest, said.predicate)
    definition = said.predicate.build_definition
    inputs = {entry.name: entry for entry in definition.resolved_dependencies}
    for record in manifest.datasets:
        assert inputs[f"dataset/{record.role}/{record.name}"].digest == {"sha256": record.sha256}
    assert definition.external_parameters["seed"] == manifest.provenance.seed
    assert definition.external_parameters["targets"] == [v.target for v in manifest.variants]
    for name, version in manifest.provenance.tools.items():
        assert inputs[f"tool/{name}"].uri == attesting.package_url(name, version)


def test_a_tools_version_is_written_as_package_urls_want_it() -> None:
    assert attesting.package_url("torch", "2.13.0+cpu") == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert attesting.package_url("python", "3.11.9") == "pkg:generic/python@3.11.9"


def test_another_library_verifies_our_envelope(
    bundle: Path, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    data = (bundle / manifests.PROVENANCE).read_bytes()
    public = SSlibKey.from_crypto(bundle_key, keyid=signature.key_hint(bundle_key))
    envelope = Envelope.from_dict(json.loads(data))
    assert list(envelope.verify([public], 1)) == [public.keyid]
    statement = json.loads(envelope.payload)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    manifest = (bundle / manifests.MANIFEST).read_bytes()
    assert statement["subject"] == [
        {"name": "manifest.json", "digest": {"sha256": sha256_bytes(manifest)}}
    ]
    assert set(statement["predicate"]) == {"buildDefinition", "runDetails"}


def test_a_foreign_key_is_refused_and_named(key: StatementKey) -> None:
    foreign = StatementKey()
    said = refusal(foreign.provenance(MANIFEST), key.public)
    assert signature.key_hint(foreign.public)[:16] in said
    assert "none of the 1 trusted keys" in said


def test_provenance_of_another_bundle_is_refused(key: StatementKey) -> None:
    assert "that of another bundle" in refusal(key.provenance(b"another"), key.public)


def test_an_altered_payload_is_refused_and_not_read(key: StatementKey) -> None:
    for payload in (PAYLOAD + b" ", b"[" * 100_000):

        def swap(document: dict[str, Any], payload: bytes = payload) -> None:
            document["payload"] = base64.b64encode(payload).decode()

        said = refusal(changed(key.provenance(MANIFEST), swap), key.public)
        assert "foreign or was altered" in said


def test_ten_megabytes_are_refused_unread(key: StatementKey) -> None:
    padded = key.provenance(MANIFEST)[:-1] + b" " * 10_000_000 + b"}"
    assert f"the limit is {manifests.MAX_PROVENANCE_BYTES}" in refusal(padded, key.public)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(payloadType="text/plain"),
        lambda d: d.update(signatures=[]),
        lambda d: d.update(signatures=d["signatures"] * 9),
        lambda d: d.update(payload="not base64!"),
        lambda d: d.update(payload="ünicode"),
        lambda d: d.pop("payload"),
        lambda d: d.update(signatures=[{"sig": 1}]),
    ],
)
def test_an_envelope_of_another_kind_is_refused(key: StatementKey, change: Change) -> None:
    said = refusal(changed(key.provenance(MANIFEST), change), key.public)
    assert "not a DSSE envelope" in said


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, b"\xff", b'{"payload": "", "payload": ""}', b"1" * 5000]
)
def test_what_is_no_envelope_at_all_is_refused(key: StatementKey, data: bytes) -> None:
    assert "not a DSSE envelope" in refusal(data, key.public)


def test_a_name_that_comes_twice_in_the_envelope_is_refused(key: StatementKey) -> None:
    data = key.provenance(MANIFEST)
    twice = data[:-1] + b',"payload":"' + base64.b64encode(PAYLOAD) + b'"}'
    assert "'payload' comes twice" in refusal(twice, key.public)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2"),
        lambda d: d.update(predicateType="https://model_signing/signature/v1.0"),
        lambda d: d.pop("subject"),
        lambda d: d.update(subject=[]),
        lambda d: d.update(subject=d["subject"] * 2),
        lambda d: d["subject"][0].update(name="card.md"),
        lambda d: d["subject"][0].update(digest={"md5": "0" * 32}),
        lambda d: d["subject"][0]["digest"].update(sha256="0" * 63),
        lambda d: d.pop("predicate"),
        lambda d: d["predicate"].pop("runDetails"),
        lambda d: d["predicate"]["buildDefinition"].update(buildType="urn:serinus:build:v2"),
        lambda d: d["predicate"]["buildDefinition"].update(
            resolvedDependencies=[{"name": "x"}] * (provenance.MAX_DEPENDENCIES + 1)
        ),
    ],
)
def test_a_well_signed_statement_about_something_else_is_refused(
    key: StatementKey, change: Change
) -> None:
    said = refusal(key.attested(changed(PAYLOAD, change)), key.public)
    assert "not one of a bundle" in said


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b"[" * 100_000, b"null"])
def test_a_well_signed_payload_of_anything_else_is_refused(
    key: StatementKey, payload: bytes
) -> None:
    assert "not one of a bundle" in refusal(key.attested(payload), key.public)


def test_a_name_that_comes_twice_in_the_statement_is_refused(key: StatementKey) -> None:
    twice = PAYLOAD[:-1] + b',"predicateType":"https://slsa.dev/provenance/v1"}'
    assert "'predicateType' comes twice" in refusal(key.attested(twice), key.public)


def test_fields_that_later_versions_of_slsa_add_are_passed_over(key: StatementKey) -> None:
    def more(document: dict[str, Any]) -> None:
        document["predicate"]["runDetails"]["metadata"]["startedOn"] = "2030-01-01T00:00:00Z"

    data = key.attested(changed(PAYLOAD, more))
    assert provenance.verify(data, DIGEST, [key.public]).predicate == PREDICATE


def test_the_signature_of_the_files_is_no_provenance(key: StatementKey) -> None:
    """The same key and payload type: only the kind of statement tells them apart."""
    document = json.loads(key.statement({"manifest.json": DIGEST}))
    said = refusal(json.dumps(document["dsseEnvelope"]).encode(), key.public)
    assert "not one of a bundle" in said


def test_provenance_is_no_signature_of_the_files(key: StatementKey) -> None:
    with pytest.raises(UntrustedBundle, match="signed statement is not one of a model"):
        signature.verify(key.sign(PAYLOAD), [key.public])


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(UntrustedBundle):
        provenance.verify(data, DIGEST, [])
