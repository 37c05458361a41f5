"""People with a key each on machines apart, a stick between them, and the command they use."""

import contextlib
import functools
import http.server
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tuf.api.metadata import Metadata

from converters import cli, signing
from converters.ceremony import proposal, public_key
from edge_core.bundle import folder as folders
from edge_core.release import ReleaseRef
from tests.simulators.tiny_bundle import tiny_bundle


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def serinus_convert(*arguments: object) -> Said:
    """Run the command in this process, without a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> str:
    """Run the command, which has to succeed; returns what it printed."""
    said = serinus_convert(*arguments)
    assert said.code == 0, said.err
    return said.out


class Team:
    """Holders by name, each with an own folder and passphrase, and one repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.keys = folder / "keys"
        self.online = folder / "online"

    def keygen(self, name: str, home: Path | None = None) -> Path:
        """Make an encrypted key; returns its public part."""
        home = home or self.folder / f"home-{name}"
        done("root", "keygen", name, "--folder", home, "--passphrase-file", self.secret(name))
        return home / f"{name}.pub.json"

    def secret(self, name: str) -> Path:
        """File with a holder's passphrase."""
        path = self.folder / f"{name}.passphrase"
        if not path.exists():
            path.write_text(f"long enough for {name}\n")
        return path

    def private(self, name: str) -> Path:
        """Where a holder's key is."""
        return next(self.folder.rglob(f"{name}.pem"))

    def begin(self) -> None:
        """The first ceremony: ada, ben and cara; then an empty repository."""
        for name in ("ada", "ben", "cara"):
            self.keygen(name)
        for name in ("targets", "releases"):
            done("root", "keygen", name, "--folder", self.keys, "--no-passphrase")
        for name in ("snapshot", "timestamp"):
            done("root", "keygen", name, "--folder", self.online, "--no-passphrase")
        first = self.root_of(
            *(f"--add=root={self.public(name)}" for name in ("ada", "ben", "cara")),
            *(f"--add={role}={self.public(role)}" for role in ("targets", "snapshot", "timestamp")),
            signers=("ada", "ben"),
            first=True,
        )
        done("init-repository", "--repository", self.repository, "--keys", self.keys,
             "--root", first)  # fmt: skip

    def public(self, name: str) -> Path:
        """A holder's public part."""
        return next(self.folder.rglob(f"{name}.pub.json"))

    def propose(self, *changes: object, first: bool = False) -> Path:
        """Write a root's proposal."""
        path = self._next_proposal()
        place = () if first else ("--repository", self.repository)
        done("root", "propose", "--out", path, *place, *changes)
        return path

    def publish(self, version: str, seed: int = 0) -> ReleaseRef:
        """Build, sign and list one tiny release."""
        if not (self.keys / signing.PRIVATE_KEY).exists():
            signing.generate_key(self.keys)
        bundle = tiny_bundle(
            self.folder / "bundles" / version,
            version=version,
            seed=seed,
            sign_with=self.keys / signing.PRIVATE_KEY,
        )
        done("publish", bundle, "--repository", self.repository, "--keys", self.keys)
        return folders.ref(bundle)

    def renew(self, *more: object) -> Said:
        """Sign the list of releases again."""
        place = ("--repository", self.repository, "--keys", self.keys)
        return serinus_convert("renew", *place, *more)

    def _next_proposal(self) -> Path:
        number = len(list(self.folder.glob("proposal-*.json"))) + 1
        return self.folder / f"proposal-{number}.json"

    def sign(self, path: Path, name: str, *, first: bool = False, group: str = "root") -> Said:
        """Let a holder sign what everybody has the fingerprint of."""
        place = () if first else ("--repository", self.repository)
        secret = ("--passphrase-file", self.secret(name))
        return serinus_convert(
            group, "sign", path, "--key", self.private(name), *secret, *place,
            "--fingerprint", fingerprint(path),
        )  # fmt: skip

    def root_of(self, *changes: object, signers: tuple[str, ...], first: bool = False) -> Path:
        """A root's proposal that some have signed."""
        path = self.propose(*changes, first=first)
        for name in signers:
            said = self.sign(path, name, first=first)
            assert said.code == 0, said.err
        return path

    def change_root(self, *changes: object, signers: tuple[str, ...] = ("ada", "ben")) -> None:
        """A whole ceremony: propose, sign, publish."""
        path = self.root_of(*changes, signers=signers)
        done("root", "publish", path, "--repository", self.repository)

    def delegation_of(self, *changes: object, signer: str = "targets") -> Path:
        """A signed proposal of who may approve releases."""
        path = self._next_proposal()
        place = ("--repository", self.repository)
        done("delegation", "propose", "--out", path, *place, *changes)
        said = self.sign(path, signer, group="delegation")
        assert said.code == 0, said.err
        return path

    def change_delegation(self, *changes: object, signer: str = "targets") -> None:
        """Propose, sign and publish who may approve releases."""
        path = self.delegation_of(*changes, signer=signer)
        done("delegation", "publish", path, "--repository", self.repository)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder as any web server has it; gives its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fingerprint(path: Path) -> str:
    """What the proposer reads out."""
    return public_key.fingerprint(proposal.fingerprint(Metadata.from_file(str(path))))


def replaced(path: Path, pattern: str, by: str) -> None:
    """Change a file as somebody with an editor would."""
    text = path.read_text()
    changed = re.sub(pattern, by, text, count=1)
    assert changed != text
    path.write_text(changed)
