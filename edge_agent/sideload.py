"""Installing a bundle that was carried by hand: no server, but a signature by a pinned key."""

import shutil
import tempfile
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.fetching import needed_files
from edge_agent.update.slots import Pointer, Slots
from edge_agent.update.updater import self_test
from edge_core.bundle import archive, signature, trust
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE
from edge_core.errors import InvalidBundle, InvalidConfiguration
from edge_core.release import ReleaseRef


def install(bundle: Path, config: AgentConfig) -> ReleaseRef:
    """Verify, self-test and activate a bundle folder or archive; the agent must not be running.

    Raises:
        UntrustedBundle: no pinned key signed it.
        InvalidBundle: truncated, altered, or for other targets.
        InvalidConfiguration: no key is pinned.
    """
    keys = [signature.load_public_key(_read_key(path), str(path)) for path in config.sideload.keys]
    if not keys:
        raise InvalidConfiguration(
            "no key is pinned for side-loading; list public keys in [sideload] keys"
        )
    slots = Slots(config.state_dir)
    with tempfile.TemporaryDirectory(dir=config.state_dir) as temporary:
        folder = _unpacked(bundle, Path(temporary))
        manifest = trust.accept(
            folders.read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES),
            folders.read_limited(folder / SIGNATURE, signature.MAX_SIGNATURE_BYTES),
            keys,
        )
        folders.check(folder, manifest)
        ref = folders.ref(folder)
        if not slots.has(ref.digest):
            slots.discard(ref.digest)
            for path in [MANIFEST, *needed_files(manifest, config.target)]:
                target = slots.partial(ref.digest) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, target)
            self_test(LoadedRelease.open(slots.partial(ref.digest), config.target))
            slots.complete(ref.digest)
    active = slots.pointer().active
    if active != ref.digest:
        slots.switch(Pointer(active=ref.digest, previous=active))
    return ref


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the pinned key {path}: {error.strerror}"
        ) from error


def _unpacked(bundle: Path, temporary: Path) -> Path:
    if bundle.is_dir():
        return bundle
    if not bundle.is_file():
        raise InvalidBundle(f"no bundle at {bundle}: name a bundle's folder or archive")
    folder = temporary / "bundle"
    archive.unpack(bundle, folder)
    return folder
