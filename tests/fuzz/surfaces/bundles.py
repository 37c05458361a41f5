"""Files of bundles: each parser alone, a whole release of bad files, and archives."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from converters import signing
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.self_test import self_test
from edge_core import baseline
from edge_core.bundle import archive, golden, manifest, provenance, signature
from edge_core.bundle.digest import sha256_bytes
from edge_core.errors import SerinusError
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.stats import histogram
from tests.fuzz.forms import BYTES, JSON, MSGPACK, TAR, ZIP
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface
from tests.simulators.tiny_bundle import TARGET, tiny_bundle
from tests.simulators.tiny_requests import tiny_requests


class _Parser(Surface):
    """One file of three bundles, one of them with an embedding, through what reads it."""

    file = ""
    forms = (JSON,)
    short = 240

    def __init__(self, folder: Path) -> None:
        bundles = (
            tiny_bundle(folder / "one"),
            tiny_requests(folder / "two"),
            tiny_bundle(folder / "three", coordinates=5),
        )
        self.seeds = [((bundle / self.file).read_bytes(),) for bundle in bundles]

    def feed(self, case: Case) -> int:
        self.read(case[0])
        return 0

    def read(self, data: bytes) -> Any:
        """Parse, and use what was parsed."""
        raise NotImplementedError

    def check(self) -> None:
        for (data,) in self.seeds:
            self.read(data)


class Manifests(_Parser):
    """``manifest.json``; what is read is written and read as the same."""

    name = "manifests"
    file = manifest.MANIFEST

    def read(self, data: bytes) -> Any:
        found = manifest.parse(data)
        assert manifest.parse(manifest.serialize(found)) == found


class References(_Parser):
    """``reference.bin``, counted into as devices do."""

    name = "references"
    file = manifest.REFERENCE
    forms = (MSGPACK,)

    def read(self, data: bytes) -> Any:
        reference = histogram.parse(data)
        layout = histogram.Layout(reference)
        values = np.array([[0.0, 1.0, -1.0, 3e38]], np.float32)
        row = np.resize(values, (1, layout.features))
        counts = histogram.Histogram(layout)
        size = reference.coordinates
        embedding = np.resize(values, (1, size)) if size else None
        counts.update(np.resize(values, (1, 2, layout.inputs)), row, values[:, :2], embedding)
        assert histogram.Histogram.from_bytes(layout, counts.to_bytes()).counts.shape


class Definitions(_Parser):
    """``features.json``, compiled and asked as devices do."""

    name = "definitions"
    file = manifest.FEATURES

    def read(self, data: bytes) -> Any:
        found = definitions.parse(data)
        again = definitions.parse(definitions.serialize(found))
        assert definitions.digest(again) == definitions.digest(found)
        if isinstance(found, RequestDefinition):
            RequestEvaluator(found)
            return
        raw = np.zeros((1, *found.raw_shape), np.float32)
        if raw.size < 2**20:
            features = Evaluator(found)
            assert features.evaluate(features.quantise(raw)).shape == (1, len(found.feature_names))


class Baselines(_Parser):
    """``fallback.json``, asked about a row."""

    name = "baselines"
    file = manifest.FALLBACK

    def read(self, data: bytes) -> Any:
        found = baseline.parse(data)
        found.logits(np.ones((1, len(found.features)), np.float32), found.features)


class Goldens(_Parser):
    """``golden.npz``, replayed by the definition that it belongs to."""

    name = "goldens"
    file = manifest.GOLDEN
    forms = (ZIP,)
    short = 120

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._definitions = [
            definitions.parse((folder / name / manifest.FEATURES).read_bytes())
            for name in ("one", "two")
        ]

    def read(self, data: bytes) -> Any:
        found = golden.unpack(data)
        refused: list[SerinusError] = []
        for definition in self._definitions:
            try:
                golden.samples(definition, found.raw)
                golden.served(definition, found.raw)
            except SerinusError as error:
                refused.append(error)
        if len(refused) == len(self._definitions):
            raise refused[0]


class Signatures(_Parser):
    """``model.sig``."""

    name = "signatures"
    file = manifest.SIGNATURE

    def __init__(self, folder: Path) -> None:
        key = signing.generate_key(folder / "keys")
        bundle = tiny_bundle(folder / "one", sign_with=key)
        self._keys = [signature.load_public_key((folder / "keys/statement.pub.pem").read_bytes())]
        self.seeds = [((bundle / self.file).read_bytes(),)]

    def read(self, data: bytes) -> Any:
        found = signature.verify(data, self._keys)
        assert found == signature.verify(self.seeds[0][0], self._keys), "another statement is taken"


class Provenances(_Parser):
    """``provenance.sig``."""

    name = "provenances"
    file = manifest.PROVENANCE

    def __init__(self, folder: Path) -> None:
        key = signing.generate_key(folder / "keys")
        bundle = tiny_bundle(folder / "one", sign_with=key)
        self._keys = [signature.load_public_key((folder / "keys/statement.pub.pem").read_bytes())]
        self._manifest = sha256_bytes((bundle / manifest.MANIFEST).read_bytes())
        self.seeds = [((bundle / self.file).read_bytes(),)]

    def read(self, data: bytes) -> Any:
        found = provenance.verify(data, self._manifest, self._keys)
        seed = provenance.verify(self.seeds[0][0], self._manifest, self._keys)
        assert found == seed, "another statement is taken"


class Keys(_Parser):
    """Public keys that the settings name."""

    name = "keys"
    forms = (BYTES,)

    def __init__(self, folder: Path) -> None:
        signing.generate_key(folder / "keys")
        self.seeds = [((folder / "keys/statement.pub.pem").read_bytes(),)]

    def read(self, data: bytes) -> Any:
        signature.load_public_key(data)


class Releases(Surface):
    """A bundle whose files are bad and whose manifest fits them: loaded and tested as on a device.

    Nobody but its maker can sign such a bundle; a device still has to survive it.
    """

    name = "releases"
    files = (manifest.FEATURES, manifest.REFERENCE, manifest.FALLBACK, manifest.GOLDEN)
    forms = (JSON, MSGPACK, JSON, ZIP)
    short = 60

    def __init__(self, folder: Path) -> None:
        self._bundles = (tiny_bundle(folder / "one"), tiny_requests(folder / "two"))
        self.seeds = [
            tuple((bundle / file).read_bytes() for file in self.files) for bundle in self._bundles
        ]

    def feed(self, case: Case) -> int:
        refused: list[SerinusError] = []
        for bundle, seed in zip(self._bundles, self.seeds, strict=True):
            same = sum(mine == theirs for mine, theirs in zip(case, seed, strict=True))
            if same < len(case) - 2:
                continue
            try:
                self._load(bundle, case)
            except SerinusError as error:
                refused.append(error)
        if refused:
            raise refused[0]
        return 0

    def _load(self, bundle: Path, case: Case) -> None:
        for file, data in zip(self.files, case, strict=True):
            (bundle / file).write_bytes(data)
        self_test(LoadedRelease.open(bundle, TARGET))

    def check(self) -> None:
        for bundle, seed in zip(self._bundles, self.seeds, strict=True):
            self._load(bundle, seed)


class Archives(Surface):
    """Archives that are carried by hand: nothing outside the folder, nothing left behind."""

    name = "archives"
    forms = (TAR,)
    short = 60

    def __init__(self, folder: Path) -> None:
        self._inside = folder / "inside"
        self._inside.mkdir()
        self._folder = folder
        self._outside = folder / "outside"
        self._outside.write_text("mine")
        archive.pack(tiny_bundle(folder / "bundle"), folder / "bundle.tar")
        self.seeds = [((folder / "bundle.tar").read_bytes(),)]
        self._hostile = [_hostile(change) for change in HOSTILE]
        self._number = 0
        self._before = self._seen()

    def feed(self, case: Case) -> int:
        self._number += 1
        data = case[0]
        if self._number > 1 and self._number % 4 == 0 and len(data) > 2048:
            # A member of a kind that no packer of ours writes, before the bundle's own.
            data = self._hostile[self._number // 4 % len(self._hostile)] + data
        path, destination = self._folder / "bad.tar", self._inside / "new"
        path.write_bytes(data)
        try:
            archive.unpack(path, destination)
        finally:
            path.unlink()
            shutil.rmtree(destination, ignore_errors=True)
            assert not list(self._inside.iterdir()), "something was left behind"
            assert self._seen() == self._before, "something outside was touched"
        return 0

    def _seen(self) -> dict[str, str]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def check(self) -> None:
        archive.unpack(self._folder / "bundle.tar", self._inside / "new")
        shutil.rmtree(self._inside / "new")


HOSTILE: list[Callable[[tarfile.TarInfo], None]] = [
    lambda member: setattr(member, "name", "../outside"),
    lambda member: setattr(member, "name", "/etc/serinus"),
    lambda member: setattr(member, "type", tarfile.SYMTYPE),
    lambda member: setattr(member, "type", tarfile.LNKTYPE),
    lambda member: setattr(member, "type", tarfile.CHRTYPE),
    lambda member: setattr(member, "type", tarfile.FIFOTYPE),
    lambda member: setattr(member, "type", tarfile.DIRTYPE),
    lambda member: setattr(member, "type", tarfile.GNUTYPE_SPARSE),
    lambda member: setattr(member, "name", "x" * 5000),
    lambda member: member.pax_headers.update({"size": "9" * 40, "GNU.sparse.map": "0,1"}),
    lambda member: member.pax_headers.update({"path": "a\0b"}),
]


def _hostile(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    """Blocks of one member, without the end of an archive."""
    content = BytesIO()
    member = tarfile.TarInfo("manifest.json")
    member.linkname = "../outside"
    change(member)
    with tarfile.open(
        fileobj=content, mode="w", format=tarfile.PAX_FORMAT, errors="surrogatepass"
    ) as opened:
        opened.addfile(member)
        end = content.tell()
    return content.getvalue()[:end]
