import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import FEATURES, MANIFEST, MAX_MANIFEST_BYTES
from edge_core.errors import InvalidBundle

MODEL = "variants/cpu-x86_64-ort/model.onnx"


def test_a_whole_folder_passes_and_is_identified_by_its_manifest(bundle: Path) -> None:
    manifest = folders.read(bundle)
    folders.check(bundle, manifest)
    ref = folders.ref(bundle)
    assert ref.name == "tiny-motion@1.0.0"
    assert ref.digest == hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_one_flipped_byte_in_any_file_is_found(bundle: Path) -> None:
    manifest = folders.read(bundle)
    for entry in manifest.files:
        _flip(bundle / entry.path)
        with pytest.raises(InvalidBundle, match=f"{entry.path} was altered"):
            folders.check(bundle, manifest)
        _flip(bundle / entry.path)
    folders.check(bundle, manifest)


def truncated(bundle: Path) -> None:
    os.truncate(bundle / MODEL, 10)


def longer(bundle: Path) -> None:
    with (bundle / MODEL).open("ab") as stream:
        stream.write(b"x")


def missing(bundle: Path) -> None:
    (bundle / MODEL).unlink()


def a_link(bundle: Path) -> None:
    (bundle / MODEL).rename(bundle.parent / "model.onnx")
    (bundle / MODEL).symlink_to(bundle.parent / "model.onnx")


def a_linked_folder(bundle: Path) -> None:
    (bundle / "variants").rename(bundle.parent / "variants")
    (bundle / "variants").symlink_to(bundle.parent / "variants")


def a_pipe(bundle: Path) -> None:
    (bundle / MODEL).unlink()
    os.mkfifo(bundle / MODEL)


def a_folder(bundle: Path) -> None:
    (bundle / MODEL).unlink()
    (bundle / MODEL).mkdir()


def an_extra_file(bundle: Path) -> None:
    (bundle / "extra.py").write_text("print()")


def an_extra_hidden_file(bundle: Path) -> None:
    (bundle / "variants" / ".extra").write_text("")


def an_extra_linked_folder(bundle: Path) -> None:
    (bundle / "extra").symlink_to(bundle.parent)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncated, f"{MODEL} has 10 of its"),
        (longer, "more than the"),
        (missing, "cannot read"),
        (a_link, f"{MODEL} is not a plain file"),
        (a_linked_folder, "does not list: variants"),
        (a_pipe, f"{MODEL} is not a plain file"),
        (a_folder, f"{MODEL} is not a plain file"),
        (an_extra_file, r"does not list: extra\.py"),
        (an_extra_hidden_file, r"does not list: variants/\.extra"),
        (an_extra_linked_folder, "does not list: extra"),
    ],
)
def test_a_folder_that_differs_is_refused(
    bundle: Path, spoil: Callable[[Path], None], words: str
) -> None:
    manifest = folders.read(bundle)
    spoil(bundle)
    with pytest.raises(InvalidBundle, match=words):
        folders.check(bundle, manifest)


def test_a_device_may_hold_only_some_files_but_those_whole(bundle: Path) -> None:
    manifest = folders.read(bundle)
    (bundle / MODEL).unlink()
    folders.check(bundle, manifest, only={FEATURES})
    with pytest.raises(InvalidBundle, match="cannot read"):
        folders.check(bundle, manifest, only={FEATURES, MODEL})
    with pytest.raises(InvalidBundle, match="lists no other"):
        folders.check(bundle, manifest, only={"other"})
    _flip(bundle / FEATURES)
    with pytest.raises(InvalidBundle, match="altered"):
        folders.check(bundle, manifest, only={FEATURES})


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=str(tmp_path)):
        folders.read(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(InvalidBundle, match="more than the"):
        folders.ref(tmp_path)
