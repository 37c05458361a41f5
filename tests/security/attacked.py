"""A running device whose release repository an attacker has in hand."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from converters.publishing import ONLINE_KEYS, ROOT_KEYS
from edge_core.release import ReleaseRef
from fleet_server.repository_refresh import Refresher
from tests.faults.case import Site
from tests.faults.device import Device, Fault
from tests.faults.servers import Server
from tests.simulators.ceremony import done, fingerprint

LATER = timedelta(days=30)
FAR = 900_000_000
"""A version that no honest list will reach."""
SILENT = "not serving"
"""How a failure begins where somebody fell silent."""


class NotServing(Fault):
    """The device answers nobody, or with what nobody approved."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{SILENT}: {what}")


class Repository:
    """A copy of the stage's repository that may be changed, and the keys that were stolen."""

    def __init__(self, site: Site) -> None:
        source = site.stage.folder / "source"
        self._honest = source / "repository"
        self.folder = site.folder / "repository"
        shutil.copytree(self._honest, self.folder)
        self.metadata = self.folder / "metadata"
        self.keys = source / "keys"
        self._fresh = site.folder / "fresh"

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
        self.snap(lambda signed: signed.meta.update({"releases.json": MetaFile(version)}))

    def snap(self, change: Callable[[Snapshot], object]) -> None:
        """Sign, with the stolen keys, the next snapshot, changed, and a timestamp that names it."""
        snapshot = self.snapshot()
        snapshot.signed.version += 1
        snapshot.signed.expires = datetime.now(UTC).replace(microsecond=0) + LATER
        change(snapshot.signed)
        snapshot.sign(self.signer("snapshot"))
        name = f"{snapshot.signed.version}.snapshot.json"
        (self.metadata / name).write_bytes(snapshot.to_bytes())
        self.name_snapshot(snapshot.signed.version)

    def name_snapshot(self, version: int) -> None:
        """Sign, with the stolen key, the next timestamp, which names a snapshot."""
        self.stamp(lambda signed: setattr(signed, "snapshot_meta", MetaFile(version)))

    def stamp(self, change: Callable[[Timestamp], object]) -> None:
        """Sign, with the stolen key, the next timestamp, changed."""
        timestamp = self.timestamp()
        timestamp.signed.version += 1
        change(timestamp.signed)
        timestamp.sign(self.signer("timestamp"))
        (self.metadata / "timestamp.json").write_bytes(timestamp.to_bytes())

    def fast_forward(self) -> None:
        """Sign, with the stolen keys, versions that no honest list will reach."""
        self.snap(lambda signed: setattr(signed, "version", FAR))
        self.stamp(lambda signed: setattr(signed, "version", FAR))

    def put_back(self) -> None:
        """Put the honest metadata in the place of all that was made."""
        shutil.rmtree(self.metadata)
        shutil.copytree(self._honest / "metadata", self.metadata)

    def replace_online_keys(self) -> None:
        """People replace the server's two keys by a new root, and the server signs with its own."""
        place = ("--repository", self.folder)
        path = self._fresh / "root.json"
        for role in ONLINE_KEYS:
            done("root", "keygen", role, "--folder", self._fresh, "--no-passphrase")
        changes = (f"--replace={role}={self._fresh / f'{role}.pub.json'}" for role in ONLINE_KEYS)
        done("root", "propose", "--out", path, *place, *changes)
        for name in ROOT_KEYS[:2]:
            key = ("--key", self.keys / f"{name}.pem", "--fingerprint", fingerprint(path))
            done("root", "sign", path, *place, *key)
        done("root", "publish", path, *place)
        pinned = (self.metadata / "1.root.json").read_bytes()
        Refresher(
            self.folder, self._fresh, pinned, snapshot_life=LATER, timestamp_life=LATER
        ).refresh(datetime.now(UTC))


class Attacked:
    """A device that follows such a repository, seen from outside."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._old = device.stage.old

    def refuses(self, ref: ReleaseRef, reason: str) -> None:
        """Tell it to run a release and see that it refuses; ``reason`` is a pattern of its words.

        Raises:
            NotServing: the old release does not answer all the while.
            Fault: it runs what it should not, or does not say why it did not.
        """
        device = self._device
        device.want(ref)
        self._until_ended([self._old.digest], f"the refusal of {ref.name}")
        said = device.truthful()
        if said.active != self._old:
            raise Fault(f"{said.active} serves after the attack")
        if not re.search(reason, said.reason):
            raise Fault(f"it says {said.reason!r}, which does not tell {reason!r}")

    def takes(self, ref: ReleaseRef) -> None:
        """Tell it to run a release and see that it does, the old one serving until then.

        Raises:
            NotServing: at some moment neither of the two answers.
            Fault: it does not take it, or goes back.
        """
        device = self._device
        device.want(ref)
        self._until_ended([self._old.digest, ref.digest], f"{ref.name} in service")
        said = device.truthful()
        if said.active != ref:
            raise Fault(f"it does not recover: {said.reason}")

    def complains(self, pattern: str) -> None:
        """See that it names a trouble of its own; none where the pattern is empty."""
        device = self._device

        def told() -> bool:
            said = device.reported()
            text = "; ".join(said.troubles) if said is not None else ""
            return bool(re.search(pattern, text)) if pattern else not text

        device.until(told, f"the trouble {pattern!r}")

    def _until_ended(self, order: list[str], what: str) -> None:
        """Ask for answers until the wish has ended: from these releases, in this order."""
        left = list(order)

        def ended() -> bool:
            now = self._device.serves()
            if not now:
                raise NotServing(f"while one waits for {what}")
            while left and left[0] != now:
                left.pop(0)
            if not left:
                raise Fault(f"{now[:12]} serves after the attack, while one waits for {what}")
            return _ended(self._device)

        self._device.until(ended, what)


@contextmanager
def attacked(
    site: Site,
    repository: Repository,
    *,
    plan: Callable[[int], str] = lambda number: "",
    prepare: Callable[[], None] | None = None,
) -> Iterator[Attacked]:
    """A running device that holds the stage's old release and follows a repository.

    Args:
        site: where.
        repository: what it follows; removed at the end.
        plan: what the server does at each request.
        prepare: called in the device's process before it begins.
    """
    with (
        Server(site.folder / "s", repository.folder, plan) as server,
        site.device(before="one", url=server.url) as device,
    ):
        device.start(prepare)
        device.served_by([site.stage.old])
        yield Attacked(device)
    shutil.rmtree(repository.folder)


def refuses(
    site: Site,
    attack: Callable[[Repository], ReleaseRef],
    reason: str,
    *,
    plan: Callable[[int], str] = lambda number: "",
    prepare: Callable[[], None] | None = None,
) -> None:
    """See that a device which is told to run what an attack prepares refuses it.

    ``attack`` changes the repository and says what the device is told to run; the rest is as for
    :func:`attacked` and :meth:`Attacked.refuses`.
    """
    repository = Repository(site)
    ref = attack(repository)
    with attacked(site, repository, plan=plan, prepare=prepare) as device:
        device.refuses(ref, reason)


def _ended(device: Device) -> bool:
    said = device.reported()
    if said is None or said.desired_revision != device.revision:
        return False
    return said.update in ("failed", "committed")
