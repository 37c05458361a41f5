"""Checks again what a bundle claims: signature, bytes, golden vectors."""

from pathlib import Path

import numpy as np

from converters import incumbent
from converters.quiet import silenced
from converters.replay import golden_coverage
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle import signature, trust
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidBundle, UntrustedBundle
from edge_core.features import definition as definitions


def verify(folder: Path, key: Path) -> list[str]:
    """Verify a bundle with a public key and say what holds.

    Raises:
        UntrustedBundle, InvalidBundle: what does not hold.
    """
    manifest = trusted(folder, key)
    said = [f"signature by {key.name} holds, {len(manifest.files)} files are whole"]
    said += [_golden(folder, manifest, variant) for variant in manifest.variants]
    return said + golden_coverage.of_bundle(folder)


def trusted(folder: Path, key: Path) -> Manifest:
    """The manifest of a bundle that a key signed, once every file is what it lists.

    Raises:
        UntrustedBundle, InvalidBundle: what does not hold.
    """
    public = signature.load_public_key(folders.read_limited(key, 64 * 1024), str(key))
    if not (folder / manifests.SIGNATURE).is_file():
        raise UntrustedBundle(f"{folder} is not signed: build it with --key STATEMENT.pem")
    manifest = trust.accept(
        folders.read_limited(folder / manifests.MANIFEST, manifests.MAX_MANIFEST_BYTES),
        folders.read_limited(folder / manifests.SIGNATURE, signature.MAX_SIGNATURE_BYTES),
        [public],
    )
    folders.check(folder, manifest)
    return manifest


def _golden(folder: Path, manifest: Manifest, variant: VariantRecord) -> str:
    """Answer the golden rows again and compare; features bit for bit, logits within tolerance."""
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    golden = goldens.unpack(
        folders.read_limited(folder / manifests.GOLDEN, goldens.MAX_GOLDEN_BYTES)
    )
    expected = golden.expected.get(variant.target)
    if goldens.served(definition, golden.raw).tobytes() != golden.features.tobytes():
        raise InvalidBundle(f"{manifest.model}: features of the golden rows differ")
    if expected is None:
        return f"{variant.target}: was compiled, never run; the bundle holds no answers to compare"
    with silenced():
        logits = incumbent.answer(folder, manifest, variant, golden.raw)
    if logits is None:
        return f"{variant.target}: nothing here runs the file; its answers were not compared"
    worst = float(np.abs(logits - expected).max(initial=0.0))
    if not worst <= variant.tolerance:
        raise InvalidBundle(
            f"{variant.target}: golden logits are off by {worst:.4g}; allowed is "
            f"{variant.tolerance:.4g}"
        )
    return f"{variant.target}: {len(golden.features)} golden rows agree (worst {worst:.2g})"
