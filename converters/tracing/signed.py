"""Who signed a bundle, and whether its files are the ones that the manifest lists."""

from pathlib import Path

import msgspec

from converters import attesting
from converters.tracing import agreement, built
from converters.tracing.agreement import SIGNED
from converters.tracing.link import Link, facts, short
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle import provenance, signature, trust
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle, UntrustedBundle
from edge_core.release import ReleaseRef

MAX_KEY_BYTES = 64 * 1024


def checked(folder: Path, manifest: Manifest, ref: ReleaseRef, key: Path | None) -> list[Link]:
    """The links that the manifest tells of, and who vouches for them.

    Raises:
        InvalidConfiguration: the key is none.
    """
    found = [_with_files(folder, manifest, link) for link in built.links(manifest)]
    if key is None:
        asked = "not checked: give --key PUBLIC"
        return [*(_left_open(link, asked) for link in found), Link(name=SIGNED, unknown=[asked])]
    vouched, differences = _vouched(folder, manifest, ref, key)
    found = [_with_broken(link, differences.get(link.name, [])) for link in found]
    if vouched.broken:
        nobody = "nobody who is trusted vouches for the manifest"
        return [*(_left_open(link, nobody) for link in found), vouched]
    known = {problem for link in found for problem in link.broken}
    others = [problem for problem in _whole(folder, manifest) if problem not in known]
    return [*found, _with_broken(vouched, others)]


def _vouched(
    folder: Path, manifest: Manifest, ref: ReleaseRef, key: Path
) -> tuple[Link, dict[str, list[str]]]:
    """The link of the signatures, and what provenance says otherwise, by link."""
    public = signature.load_public_key(folders.read_limited(key, MAX_KEY_BYTES), str(key))
    told = facts([("key", signature.key_hint(public)), ("key file", key.name)])
    try:
        data = folders.read_limited(folder / manifests.MANIFEST, manifests.MAX_MANIFEST_BYTES)
        signed = folders.read_limited(folder / manifests.SIGNATURE, signature.MAX_SIGNATURE_BYTES)
        attested = folders.read_provenance(folder)
        trust.accept(data, signed, attested, [public])
        if attested is None:
            unknown = ["there is no provenance.sig: it was signed before there was one"]
            return Link(name=SIGNED, facts=told, unknown=unknown), {}
        said = provenance.verify(attested, ref.digest, [public]).predicate
    except (UntrustedBundle, InvalidBundle) as error:
        return Link(name=SIGNED, broken=[str(error)]), {}
    differences = agreement.disagreements(said, attesting.predicate(manifest, ref.digest))
    told += facts([("provenance", said.build_definition.build_type)])
    return Link(name=SIGNED, facts=told, broken=differences.pop(SIGNED, [])), differences


def _with_files(folder: Path, manifest: Manifest, link: Link) -> Link:
    """The link, broken where the files that it is about are not the manifest's."""
    paths: list[str] = []
    broken: list[str] = []
    if link.name == built.FEATURES:
        paths = [manifests.FEATURES]
        listed = {entry.path: entry.sha256 for entry in manifest.files}
        if listed.get(manifests.FEATURES) != manifest.features_sha256:
            of_file = short(listed.get(manifests.FEATURES, "none"))
            broken.append(f"the file listed is {of_file}, the definition built from another")
    elif link.name == built.CONVERSION:
        paths = [variant.path for variant in manifest.variants]
    for path in paths:
        try:
            folders.check_file(folder / path, manifest.file(path))
        except InvalidBundle as error:
            broken.append(str(error))
    return _with_broken(link, broken)


def _whole(folder: Path, manifest: Manifest) -> list[str]:
    try:
        folders.check(folder, manifest)
    except InvalidBundle as error:
        return [str(error)]
    return []


def _with_broken(link: Link, broken: list[str]) -> Link:
    return msgspec.structs.replace(link, broken=[*link.broken, *broken])


def _left_open(link: Link, why: str) -> Link:
    return msgspec.structs.replace(link, unknown=[*link.unknown, why])
