"""Side-loading accepts exactly what a pinned key signed."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge_core.bundle import manifest as manifests
from edge_core.bundle import trust
from edge_core.bundle.digest import sha256_bytes
from edge_core.errors import InvalidBundle, UntrustedBundle
from tests.edge_core.bundle.conftest import StatementKey


def _resources(manifest: bytes) -> dict[str, str]:
    listed = {entry.path: entry.sha256 for entry in manifests.parse(manifest).files}
    return listed | {manifests.MANIFEST: sha256_bytes(manifest)}


@pytest.fixture
def manifest(bundle: Path) -> bytes:
    return (bundle / manifests.MANIFEST).read_bytes()


@pytest.fixture
def attested(bundle: Path) -> bytes:
    return (bundle / manifests.PROVENANCE).read_bytes()


def test_a_signed_manifest_is_accepted(
    bundle: Path, manifest: bytes, attested: bytes, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    signed = (bundle / manifests.SIGNATURE).read_bytes()
    assert trust.accept(manifest, signed, attested, [bundle_key]) == manifests.parse(manifest)


def test_a_foreign_key_is_refused(
    bundle: Path, manifest: bytes, attested: bytes, key: StatementKey
) -> None:
    signed = (bundle / manifests.SIGNATURE).read_bytes()
    with pytest.raises(UntrustedBundle, match="none of the 1 trusted keys"):
        trust.accept(manifest, signed, attested, [key.public])


def test_any_other_byte_of_the_manifest_is_refused(
    bundle: Path, manifest: bytes, attested: bytes, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    signed = (bundle / manifests.SIGNATURE).read_bytes()
    for other in (manifest + b" ", manifest.replace(b"1.0.0", b"1.0.1", 1), b""):
        with pytest.raises(UntrustedBundle, match=r"manifest\.json is not the one"):
            trust.accept(other, signed, attested, [bundle_key])


def test_a_manifest_that_the_signature_does_not_name_is_refused(
    manifest: bytes, key: StatementKey
) -> None:
    resources = _resources(manifest)
    del resources[manifests.MANIFEST]
    with pytest.raises(UntrustedBundle, match=r"manifest\.json is not the one"):
        trust.accept(manifest, key.statement(resources), key.provenance(manifest), [key.public])


@pytest.mark.parametrize(
    "change", [{"extra.bin": "0" * 64}, {"card.md": "0" * 64}, {"golden.npz": None}]
)
def test_signature_and_manifest_list_the_same_files(
    manifest: bytes, key: StatementKey, change: dict[str, str | None]
) -> None:
    resources = {path: digest for path, digest in (_resources(manifest) | change).items() if digest}
    with pytest.raises(UntrustedBundle, match=next(iter(change))):
        trust.accept(manifest, key.statement(resources), key.provenance(manifest), [key.public])


def test_signed_bytes_that_are_no_manifest_are_invalid_and_not_untrusted(key: StatementKey) -> None:
    data = b'{"schema_version": 9}'
    signed = key.statement({manifests.MANIFEST: sha256_bytes(data)})
    with pytest.raises(InvalidBundle, match="schema version 9"):
        trust.accept(data, signed, key.provenance(data), [key.public])


def test_provenance_that_was_taken_away_is_missed(
    bundle: Path, manifest: bytes, bundle_key: ec.EllipticCurvePublicKey
) -> None:
    signed = (bundle / manifests.SIGNATURE).read_bytes()
    with pytest.raises(UntrustedBundle, match=r"provenance\.sig was taken away"):
        trust.accept(manifest, signed, None, [bundle_key])


def test_a_bundle_needs_the_provenance_of_its_own_manifest(
    bundle: Path, manifest: bytes, bundle_key: ec.EllipticCurvePublicKey, key: StatementKey
) -> None:
    signed = (bundle / manifests.SIGNATURE).read_bytes()
    with pytest.raises(UntrustedBundle, match="provenance is signed by key"):
        trust.accept(manifest, signed, key.provenance(manifest), [bundle_key])
    with pytest.raises(UntrustedBundle, match="that of another bundle"):
        trust.accept(manifest, signed, key.provenance(manifest + b" "), [bundle_key, key.public])
