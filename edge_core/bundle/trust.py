"""Side-loading: signature and manifest bytes in, an accepted manifest out. No files, no network.

In fleet mode the release repository (TUF) decides instead; see ``edge_agent.repository``.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from edge_core.bundle import manifest as manifests
from edge_core.bundle import signature as signatures
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import MANIFEST, Manifest
from edge_core.errors import UntrustedBundle


def accept(
    manifest: bytes, signature: bytes, keys: Sequence[ec.EllipticCurvePublicKey]
) -> Manifest:
    """Accept a manifest that one of ``keys`` signed together with all the files it lists.

    Raises:
        UntrustedBundle: no trusted key signed exactly these bytes.
        InvalidBundle: the bytes are authentic, but not a manifest that this Serinus reads.
    """
    statement = signatures.verify(signature, keys)
    if statement.resources.get(MANIFEST) != sha256_bytes(manifest):
        raise UntrustedBundle("manifest.json is not the one that was signed")
    parsed = manifests.parse(manifest)
    listed = {entry.path: entry.sha256 for entry in parsed.files}
    signed = {path: digest for path, digest in statement.resources.items() if path != MANIFEST}
    if listed != signed:
        differing = sorted(dict(listed.items() ^ signed.items()))
        raise UntrustedBundle(f"manifest and signature disagree about {', '.join(differing[:5])}")
    return parsed
