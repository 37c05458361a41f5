"""What goes from hand to hand in a key ceremony: proposals of both kinds, and public keys."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from converters import publishing
from converters.ceremony import (
    delegation_change,
    enacting,
    ground,
    proposal,
    public_key,
    root_change,
    wording,
)
from tests.fuzz.forms import BYTES, JSON
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface


class _Proposals(Surface):
    """A proposal's file, read and shown to a holder as before a signature, then counted.

    The first part says whether the content is signed anew by all who have a say, or has lost its
    signatures; the second is the content.
    """

    forms = (BYTES, JSON)
    short = 160

    def __init__(self, folder: Path) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)
        self._file = folder / "proposal.json"
        publishing.init_repository(folder / "repository", folder / "keys", self._now)
        self._standing = ground.of_repository(folder / "repository", None)
        self._signers = [
            CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
            for path in sorted((folder / "keys").rglob("*.pem"))
            if b"PRIVATE" in path.read_bytes()
        ]
        metadata = self.proposed(self._standing.need_root(), self._now + timedelta(days=100))
        for signer in self._signers:
            if signer.public_key.keyid in self.voters():
                metadata.sign(signer, append=True)
        self.seeds = [(flag, metadata.to_bytes()) for flag in (b"\0", b"\1", b"\2")]

    def proposed(self, root: Root, expires: datetime) -> "Metadata[Root] | Metadata[Targets]":
        """A good one, not signed yet."""
        raise NotImplementedError

    def voters(self) -> set[str]:
        """Ids of the keys that sign it."""
        raise NotImplementedError

    def look(self) -> None:
        """What a command does with the file before anything is signed or published."""
        raise NotImplementedError

    def feed(self, case: Case) -> int:
        flag, content = case
        self._file.write_bytes(self._signed(flag[:1], content))
        self.look()
        return 0

    def _signed(self, flag: bytes, content: bytes) -> bytes:
        """With signatures that are for this content, or none; as it is where it holds none."""
        if flag not in (b"\1", b"\2"):
            return content
        try:
            tree: Any = json.loads(content)
            body = str(encode_canonical(tree["signed"])).encode()
            signatures = [
                signer.sign(body).to_dict()
                for signer in self._signers
                if flag == b"\1" and signer.public_key.keyid in self.voters()
            ]
            return json.dumps({**tree, "signatures": signatures}).encode()
        except Exception:  # it is no such tree
            return content

    def check(self) -> None:
        for case in self.seeds:
            self.feed(case)


class RootProposals(_Proposals):
    """Root metadata."""

    name = "root-proposals"

    def proposed(self, root: Root, expires: datetime) -> Metadata[Root]:
        return Metadata(root_change.following(root, root_change.Change(expires=expires), self._now))

    def voters(self) -> set[str]:
        return set(self._standing.need_root().roles[Root.type].keyids)

    def look(self) -> None:
        metadata = proposal.merged([self._file, self._file], Root)
        before = self._standing.root
        enacting.check_root(self._standing, metadata, self._now)
        assert all(line.isprintable() for line in wording.of_root(before, metadata.signed))
        for voice in enacting.root_voices(before, metadata):
            assert voice.missing >= 0
        proposal.fingerprint(metadata)


class DelegationProposals(_Proposals):
    """Targets metadata, which says who approves releases."""

    name = "delegation-proposals"

    def proposed(self, root: Root, expires: datetime) -> Metadata[Targets]:
        standing = self._standing
        change = delegation_change.Change(expires=expires)
        version = standing.targets_version + 1
        return Metadata(
            delegation_change.following(root, standing.targets, version, change, self._now)
        )

    def voters(self) -> set[str]:
        return set(self._standing.need_root().roles[Targets.type].keyids)

    def look(self) -> None:
        metadata = proposal.merged([self._file, self._file], Targets)
        root = self._standing.need_root()
        enacting.check_delegation(root, self._standing.targets_version, metadata, self._now)
        words = wording.of_delegation(self._standing.targets, metadata.signed)
        assert all(line.isprintable() for line in words)
        for voice in enacting.delegation_voices(root, metadata):
            assert voice.missing >= 0
        proposal.fingerprint(metadata)


class PublicKeys(Surface):
    """Public keys as they are handed over."""

    name = "public-keys"
    forms = (JSON,)
    short = 240

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ada.pub.json"
        key = CryptoSigner.generate_ed25519().public_key
        public_key.write(self._file, public_key.held_by(public_key.canonical(key), "ada"))
        ecdsa = CryptoSigner.generate_ecdsa().public_key
        other = folder / "ben.pub.json"
        public_key.write(other, public_key.held_by(public_key.canonical(ecdsa), "ben"))
        self.seeds = [(path.read_bytes(),) for path in (self._file, other)]

    def feed(self, case: Case) -> int:
        self._file.write_bytes(case[0])
        key = public_key.read(self._file)
        assert public_key.canonical(key).keyid == key.keyid
        assert public_key.told(key).isprintable()
        return 0

    def check(self) -> None:
        for case in self.seeds:
            self.feed(case)
