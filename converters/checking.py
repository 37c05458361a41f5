"""Checks again what a bundle claims: signature, bytes, golden vectors."""

from pathlib import Path

import msgspec
import numpy as np

from converters import incumbent
from converters.data.dataset import Float32
from converters.quiet import silenced
from converters.replay import golden_coverage
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle import signature, trust
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidBundle, UntrustedBundle
from edge_core.features import definition as definitions
from edge_core.stats.projection import EMBEDDING


def verify(folder: Path, key: Path) -> list[str]:
    """Verify a bundle with a public key and say what holds.

    Raises:
        UntrustedBundle, InvalidBundle: what does not hold.
    """
    manifest = trusted(folder, key)
    said = [f"signature by {key.name} holds, {len(manifest.files)} files are whole"]
    if not (folder / manifests.PROVENANCE).exists():
        said.append("it has no provenance.sig: it was signed before there was one")
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
        folders.read_provenance(folder),
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
        answers = incumbent.answers(folder, manifest, variant, golden.raw)
    if answers is None:
        return f"{variant.target}: nothing here runs the file; its answers were not compared"
    shown = variant.embedding
    if not isinstance(shown, msgspec.UnsetType):
        embedding = golden.embeddings.get(variant.target)
        if embedding is None:
            raise InvalidBundle(f"{variant.target}: the bundle holds no golden embeddings")
        _compare(variant, "embeddings", answers[EMBEDDING], embedding, shown.tolerance)
    logits = answers[manifest.output.name]
    worst = _compare(variant, "logits", logits, expected, variant.tolerance)
    return f"{variant.target}: {len(golden.features)} golden rows agree (worst {worst:.2g})"


def _compare(
    variant: VariantRecord, what: str, found: Float32, expected: Float32, tolerance: float
) -> float:
    """The largest difference; raise :class:`InvalidBundle` where it is more than allowed."""
    if found.shape != expected.shape:
        raise InvalidBundle(f"{variant.target}: golden {what} have the shape {expected.shape}")
    worst = float(np.abs(found - expected).max(initial=0.0))
    if not worst <= tolerance:
        raise InvalidBundle(
            f"{variant.target}: golden {what} are off by {worst:.4g}; allowed is {tolerance:.4g}"
        )
    return worst
