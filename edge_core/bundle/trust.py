"""Side-loading: signed bytes and manifest bytes in, an accepted manifest out. No files, no network.

In fleet mode the release repository (TUF) decides instead; see ``edge_agent.repository``.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from edge_core.bundle import manifest as manifests
from edge_core.bundle import provenance as provenances
from edge_core.bundle import signature as signatures
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import MANIFEST, PROVENANCE, Manifest
from edge_core.errors import UntrustedBundle


def accept(
    manifest: bytes,
    signature: bytes,
    provenance: bytes | None,
    keys: Sequence[ec.EllipticCurvePublicKey],
) -> Manifest:
    """Accept a manifest that one of ``keys`` signed together with all the files it lists.

    Args:
        manifest: ``manifest.json``.
        signature: ``model.sig``.
        provenance: ``provenance.sig``; none where there is none, as in bundles from before it.
        keys: those that are trusted.

    Raises:
        UntrustedBundle: no trusted key signed exactly these bytes.
        InvalidBundle: the bytes are authentic, but not a manifest that this Serinus reads.
    """
    statement = signatures.verify(signature, keys)
    digest = sha256_bytes(manifest)
    if statement.resources.get(MANIFEST) != digest:
        raise UntrustedBundle("manifest.json is not the one that was signed")
    if provenance is not None:
        provenances.verify(provenance, digest, keys)
    elif PROVENANCE in statement.beside:
        raise UntrustedBundle(
            f"{PROVENANCE} was taken away: the signature names it; get the whole bundle again"
        )
    parsed = manifests.parse(manifest)
    listed = {entry.path: entry.sha256 for entry in parsed.files}
    signed = {path: digest for path, digest in statement.resources.items() if path != MANIFEST}
    if listed != signed:
        differing = sorted(dict(listed.items() ^ signed.items()))
        raise UntrustedBundle(f"manifest and signature disagree about {', '.join(differing[:5])}")
    return parsed
