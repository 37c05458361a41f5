"""A running device whose release repository an attacker has in hand."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from edge_core.release import ReleaseRef
from tests.faults.case import Site
from tests.faults.device import Device, Fault
from tests.faults.servers import Server

LATER = timedelta(days=30)


SILENT = "not serving: "
"""How a failure begins where somebody fell silent."""


class NotServing(Fault):
    """The device answers nobody, or with what nobody approved."""

    def __str__(self) -> str:
        return f"{SILENT}{super().__str__()}"


class Repository:
    """A copy of the stage's repository that may be changed, and the keys that were stolen."""

    def __init__(self, site: Site) -> None:
        source = site.stage.folder / "source"
        self.folder = site.folder / "repository"
        shutil.copytree(source / "repository", self.folder)
        self.metadata = self.folder / "metadata"
        self.keys = source / "keys"

    def newest(self, role: str) -> int:
        """The highest version of a role's metadata."""
        return max(int(path.name.split(".")[0]) for path in self.metadata.glob(f"*.{role}.json"))

    def target(self, ref: ReleaseRef, name: str) -> Path:
        """The file that is served for a bundle path ending in ``name``."""
        folder = self.folder / "targets" / ref.model / ref.version
        return next(path for path in folder.rglob(f"*.{name}"))

    def signer(self, role: str) -> CryptoSigner:
        """A key of the server, stolen."""
        key = load_pem_private_key((self.keys / "online" / f"{role}.pem").read_bytes(), None)
        return CryptoSigner(key)  # type: ignore[arg-type]  # ours is Ed25519

    def snapshot(self) -> Metadata[Snapshot]:
        """The newest."""
        path = self.metadata / f"{self.newest('snapshot')}.snapshot.json"
        return Metadata[Snapshot].from_file(str(path))

    def timestamp(self) -> Metadata[Timestamp]:
        """The newest."""
        return Metadata[Timestamp].from_file(str(self.metadata / "timestamp.json"))

    def list_releases(self, version: int) -> None:
        """Sign, with the stolen keys, a snapshot and a timestamp that name a list."""
        snapshot = self.snapshot()
        snapshot.signed.version += 1
        snapshot.signed.meta["releases.json"] = MetaFile(version)
        snapshot.signed.expires = datetime.now(UTC).replace(microsecond=0) + LATER
        snapshot.sign(self.signer("snapshot"))
        name = f"{snapshot.signed.version}.snapshot.json"
        (self.metadata / name).write_bytes(snapshot.to_bytes())
        self.stamp(
            lambda signed: setattr(signed, "snapshot_meta", MetaFile(snapshot.signed.version))
        )

    def stamp(self, change: Callable[[Timestamp], object]) -> None:
        """Sign, with the stolen key, the next timestamp, changed."""
        timestamp = self.timestamp()
        timestamp.signed.version += 1
        change(timestamp.signed)
        timestamp.sign(self.signer("timestamp"))
        (self.metadata / "timestamp.json").write_bytes(timestamp.to_bytes())


def refuses(
    site: Site,
    attack: Callable[[Repository], ReleaseRef],
    reason: str,
    *,
    plan: Callable[[int], str] = lambda number: "",
    prepare: Callable[[], None] | None = None,
) -> None:
    """See that a device which is told to run what an attack prepares refuses it.

    Args:
        site: where.
        attack: changes the repository and says what the device is told to run.
        reason: pattern of what it reports.
        plan: what the server does at each request.
        prepare: called in the device's process before it begins.

    Raises:
        NotServing: the old release does not answer all the while.
        Fault: it runs what it should not, or does not say why it did not.
    """
    repository = Repository(site)
    ref = attack(repository)
    with (
        Server(site.folder / "s", repository.folder, plan) as server,
        site.device(before="one", url=server.url) as device,
    ):
        device.start(prepare)
        _serves(device)
        device.want(ref)
        device.until(lambda: _ended(device), f"the refusal of {ref.name}")
        said = device.truthful()
        if said.active != site.stage.old:
            raise Fault(f"{said.active} serves after the attack")
        _serves(device)
        if not re.search(reason, said.reason):
            raise Fault(f"it says {said.reason!r}, which does not tell {reason!r}")
    shutil.rmtree(repository.folder)


def _ended(device: Device) -> bool:
    said = device.reported()
    if said is None or said.desired_revision != device.revision:
        return False
    return said.update in ("failed", "committed")


def _serves(device: Device) -> None:
    try:
        device.served_by([device.stage.old])
    except Fault as fault:
        raise NotServing(str(fault)) from fault
