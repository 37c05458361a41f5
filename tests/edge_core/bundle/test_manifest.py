import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import FileEntry
from edge_core.errors import InvalidBundle
from tests.simulators.tiny_bundle import tiny_bundle


def changed(bundle: Path, **fields: Any) -> bytes:
    document = json.loads((bundle / manifests.MANIFEST).read_bytes())
    return json.dumps(document | fields).encode()


def test_parsing_and_serializing_give_the_same_bytes(bundle: Path) -> None:
    data = (bundle / manifests.MANIFEST).read_bytes()
    assert manifests.serialize(manifests.parse(data)) == data


def test_an_unknown_schema_version_is_refused_before_anything_else() -> None:
    with pytest.raises(InvalidBundle, match=r"schema version 5; this Serinus reads 1 to 4"):
        manifests.parse(b'{"schema_version": 5, "all": "different"}')


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"model": "Tiny"}, "model"),
        ({"version": "1.0"}, "version"),
        ({"version": "01.0.0"}, "version"),
        ({"version": "1.0.0\n"}, "version"),
        ({"version": "1\u0661.0.0"}, "version"),
        ({"features_sha256": "0" * 64 + "\n"}, "features_sha256"),
        ({"variants": []}, "variants"),
        ({"files": []}, "files"),
        ({"waivers": [{"gate": "accuracy", "reason": "short"}]}, "reason"),
    ],
)
def test_a_field_out_of_range_is_named(bundle: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidBundle, match=words):
        manifests.parse(changed(bundle, **fields))


def test_an_embedding_is_what_version_4_is_for(bundle: Path, tmp_path: Path) -> None:
    data = (bundle / manifests.MANIFEST).read_bytes()
    assert b"embedding" not in data
    plain = manifests.parse(data)
    assert (plain.schema_version, plain.output.coordinates) == (3, 0)
    made = tiny_bundle(tmp_path / "seen", coordinates=5) / manifests.MANIFEST
    told = manifests.parse(made.read_bytes())
    assert (told.schema_version, told.output.coordinates) == (4, 5)
    for seen, fields, words in (
        (tmp_path / "seen", {"schema_version": 3}, "version 3 is not that of its output"),
        (bundle, {"schema_version": 4}, "version 4 is not that of its output"),
        (bundle, {"output": json.loads(made.read_bytes())["output"]}, "not that of its output"),
        (tmp_path / "seen", {"variants": json.loads(data)["variants"]}, "variants disagree"),
    ):
        with pytest.raises(InvalidBundle, match=words):
            manifests.parse(changed(seen, **fields))


def test_files_are_in_order_unique_and_cover_the_variants(bundle: Path) -> None:
    files = json.loads((bundle / manifests.MANIFEST).read_bytes())["files"]
    twin = files[0] | {"path": files[0]["path"].upper()}
    for wrong, words in (
        (files[::-1], "order"),
        ([twin, *files], "same path"),
        (files[:-1], "not listed"),
    ):
        with pytest.raises(InvalidBundle, match=words):
            manifests.parse(changed(bundle, files=wrong))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../outside",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "a/.git/config",
        "a\\b",
        "C:/a",
        "a b",
        "a\n",
        "a\0",
        "ü",
        "a/b/c/d/e/f",
        "a" * 201,
    ],
)
def test_a_path_that_could_lead_anywhere_else_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        FileEntry(path=path, size=0, sha256="0" * 64)


def test_a_manifest_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(InvalidBundle, match="the limit is 1048576"):
        manifests.parse(b" " * (manifests.MAX_MANIFEST_BYTES + 1))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_give_a_refusal_and_no_other_error(data: bytes) -> None:
    for hostile in (data, b'{"schema_version":1,"model":"' + data + b'"}', data + b"[" * 100_000):
        with pytest.raises(InvalidBundle):
            manifests.parse(hostile)


def test_what_the_manifest_lacks_is_named_with_what_it_has(bundle: Path) -> None:
    manifest = manifests.parse((bundle / manifests.MANIFEST).read_bytes())
    assert manifest.variant("cpu-x86_64-ort").path == "variants/cpu-x86_64-ort/model.onnx"
    with pytest.raises(InvalidBundle, match="no variant for target npu; it has cpu-x86_64-ort"):
        manifest.variant("npu")
    with pytest.raises(InvalidBundle, match=r"tiny-motion@1\.0\.0 lists no other"):
        manifest.file("other")
