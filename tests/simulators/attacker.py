"""Whoever took over the server: its two online keys and its broker, but no releases key."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from paho.mqtt.enums import CallbackAPIVersion
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef

REVISION = 2**39
"""Higher than any that the server gave."""


class ForeignList:
    """Adds a release to the list with a key of its own, and orders devices to run it."""

    def __init__(self, repository: Path, online: Path) -> None:
        self._metadata = repository / "metadata"
        self._online = online
        self._key = CryptoSigner.generate_ed25519()

    @contextlib.contextmanager
    def listed(self, ref: ReleaseRef) -> Iterator[None]:
        """Publish the foreign list, properly signed by the online keys, while this lasts."""
        version = self._newest("releases") + 1
        releases = Metadata(Targets(version=version, expires=self._later()))
        name = f"{ref.model}/{ref.version}/manifest.json"
        releases.signed.targets[name] = TargetFile.from_data(name, b"{}")
        releases.sign(self._key)
        foreign = self._metadata / f"{version}.releases.json"
        foreign.write_bytes(releases.to_bytes())
        self._list(version)
        try:
            yield
        finally:
            foreign.unlink()

    def _list(self, releases: int) -> None:
        """Sign a snapshot and a timestamp that name the foreign list."""
        newest = self._newest("snapshot")
        snapshot = Metadata[Snapshot].from_file(str(self._metadata / f"{newest}.snapshot.json"))
        snapshot.signed.version = newest + 1
        snapshot.signed.meta["releases.json"] = MetaFile(releases)
        snapshot.sign(self._signer("snapshot"))
        (self._metadata / f"{newest + 1}.snapshot.json").write_bytes(snapshot.to_bytes())
        timestamp = Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json"))
        timestamp.signed.version += 1
        timestamp.signed.snapshot_meta = MetaFile(newest + 1)
        timestamp.sign(self._signer("timestamp"))
        (self._metadata / "timestamp.json").write_bytes(timestamp.to_bytes())

    def _signer(self, role: str) -> CryptoSigner:
        key = load_pem_private_key((self._online / f"{role}.pem").read_bytes(), None)
        return CryptoSigner(key)  # type: ignore[arg-type]  # ours is Ed25519

    def _newest(self, role: str) -> int:
        return max(int(p.name.split(".")[0]) for p in self._metadata.glob(f"*.{role}.json"))

    @staticmethod
    def _later() -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)

    @staticmethod
    def order(devices: Sequence[str], ref: ReleaseRef, port: int) -> None:
        """Tell every device to run the foreign release."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="attacker")
        client.connect("127.0.0.1", port)
        client.loop_start()
        desired = DesiredState(revision=REVISION, issued_ms=0, active=ref)
        for device in devices:
            message = codec.encode(desired)
            client.publish(topics.down(device, "desired"), message, qos=1).wait_for_publish(5)
        client.disconnect()
        client.loop_stop()
