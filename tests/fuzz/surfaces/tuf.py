"""TUF metadata as the agent's client sees it: bad bytes, and bad content under good signatures."""

import json
import shutil
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

from edge_agent.repository import TufRepository
from tests.fuzz.forms import BYTES, JSON
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface
from tests.simulators.repository import RepositorySimulator


class Trust(Surface):
    """One metadata file of a real repository, replaced; the client fetches a release of it.

    The first part says whether the content is signed anew, the second is the content.
    """

    forms = (BYTES, JSON)
    short = 24
    role = ""

    def __init__(self, folder: Path) -> None:
        self._source = RepositorySimulator(folder)
        self._source.__enter__()
        self._ref = self._source.publish("1.0.0")
        self._state = folder / "device"
        metadata = self._source.folder / "metadata"
        self._file = sorted(metadata.glob(f"*{self.role}.json"))[-1]
        self._good = self._file.read_bytes()
        self._signers = [
            CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
            for path in sorted(self._source.keys.rglob("*"))
            if path.is_file() and b"PRIVATE" in path.read_bytes()
        ]
        self.seeds = [(flag, self._good) for flag in (b"\0", b"\1")]

    def feed(self, case: Case) -> int:
        flag, content = case
        shutil.rmtree(self._state, ignore_errors=True)
        device = TufRepository(
            url=self._source.url, trusted_root=self._source.root, folder=self._state
        )
        signed = flag[:1] == b"\1"
        self._file.write_bytes(self._signed(content) if signed else content)
        try:
            device.manifest(self._ref)
        finally:
            self._file.write_bytes(self._good)
        # Whoever was refused goes on with the same folder as soon as the repository is right.
        device.manifest(self._ref)
        return 0

    def _signed(self, content: bytes) -> bytes:
        try:
            parsed: Any = json.loads(content)
            data = encode_canonical(parsed["signed"]).encode()
            good = json.loads(self._good)
            ids = {entry["keyid"] for entry in good["signatures"]}
            parsed["signatures"] = [
                signer.sign(data).to_dict()
                for signer in self._signers
                if signer.public_key.keyid in ids
            ]
            return json.dumps(parsed).encode()
        except Exception:  # whatever cannot be signed goes as it is
            return content

    def check(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)
        device = TufRepository(
            url=self._source.url, trusted_root=self._source.root, folder=self._state
        )
        device.manifest(self._ref)

    def close(self) -> None:
        self._source.stop()


class Timestamp(Trust):
    """``timestamp.json``."""

    name = "tuf-timestamp"
    role = "timestamp"


class Snapshot(Trust):
    """``snapshot.json``."""

    name = "tuf-snapshot"
    role = "snapshot"


class Releases(Trust):
    """The signed list of releases."""

    name = "tuf-releases"
    role = "releases"


class Roots(Surface):
    """The root that the settings name."""

    name = "tuf-root"
    forms = (JSON,)

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "device"
        with RepositorySimulator(folder) as source:
            self.seeds = [(source.root,)]

    def feed(self, case: Case) -> int:
        TufRepository(url="http://127.0.0.1:9", trusted_root=case[0], folder=self._folder)
        return 0

    def check(self) -> None:
        self.feed(self.seeds[0])
