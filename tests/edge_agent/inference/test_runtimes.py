"""Which runtime serves a target, where its operators really run, and what is said of both."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from edge_agent.inference.placing import judged
from edge_agent.inference.session import open_session, placed
from edge_agent.serving.release import LoadedRelease
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import VariantRecord
from edge_core.errors import InvalidBundle, Unavailable
from tests.simulators.tiny_bundle import BIAS, TARGET, WEIGHTS, tiny_bundle
from tests.simulators.tiny_tflite import tiny_tflite

PLUG_IN = """
import json
from pathlib import Path
import numpy as np
from edge_core.errors import InvalidBundle, Unavailable


class Session:
    def __init__(self, weights, providers):
        self.runtime = "toy 1.0 (toy NPU)"
        self.placement = {"toy NPU": 3, "CPU": 1}
        self.absent = [name for name in providers if name != "toy NPU"]
        self._weights = weights

    def run(self, rows):
        if rows[0, 0] == 99:
            raise ZeroDivisionError("a defect of the plug-in")
        return (rows @ self._weights).astype(np.float32)


def open_model(path, providers):
    weights = np.array(json.loads(Path(path).read_text()))
    return Session(weights, providers)
"""


@pytest.fixture
def variant(tmp_path: Path) -> VariantRecord:
    return folders.read(tiny_bundle(tmp_path / "bundle")).variant(TARGET)


@pytest.fixture
def onnx_file(tmp_path: Path, variant: VariantRecord) -> Path:
    return tmp_path / "bundle" / variant.path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a package with a runtime of its own."""

    def install(source: str) -> None:
        site = tmp_path / "site"
        folder = site / "toy_runtime-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-runtime\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(
            "[serinus.runtimes]\nrknn = toy_runtime:open_model\n"
        )
        (site / "toy_runtime.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "toy_runtime", raising=False)

    return install


def plugged(variant: VariantRecord, *providers: str) -> VariantRecord:
    return msgspec.structs.replace(
        variant, runtime="rknn", providers=list(providers) or msgspec.UNSET
    )


def model(folder: Path) -> Path:
    path = folder / "model.json"
    path.write_bytes(msgspec.json.encode(WEIGHTS.tolist()))
    return path


def test_a_package_brings_a_runtime(
    installed: Callable[[str], None], variant: VariantRecord, tmp_path: Path
) -> None:
    installed(PLUG_IN)
    session = open_session(model(tmp_path), plugged(variant))
    features = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(session.run(features), features @ WEIGHTS)
    assert session.runtime == "toy 1.0 (toy NPU)"


def test_a_plug_in_s_own_errors_stay_behind_the_port(
    installed: Callable[[str], None], variant: VariantRecord, tmp_path: Path
) -> None:
    installed(PLUG_IN)
    session = open_session(model(tmp_path), plugged(variant))
    with pytest.raises(Unavailable, match="rknn failed: a defect of the plug-in"):
        session.run(np.full((1, 4), 99, np.float32))
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(InvalidBundle, match="rknn of toy-runtime does not accept noise"):
        open_session(tmp_path / "noise", plugged(variant))


@pytest.mark.parametrize(
    "source", ["import nothing_of_this_name", "x = 1", "raise SystemError('broken')"]
)
def test_a_plug_in_that_cannot_be_imported_is_named(
    installed: Callable[[str], None], variant: VariantRecord, tmp_path: Path, source: str
) -> None:
    installed(source)
    with pytest.raises(Unavailable, match="toy-runtime cannot be imported from toy_runtime"):
        open_session(model(tmp_path), plugged(variant))


def test_a_runtime_that_nobody_brings_names_those_that_are_there(
    installed: Callable[[str], None], variant: VariantRecord, tmp_path: Path
) -> None:
    installed(PLUG_IN)
    other = msgspec.structs.replace(variant, runtime="qnn")
    with pytest.raises(Unavailable, match="it serves onnxruntime, litert, rknn: install"):
        open_session(model(tmp_path), other)


def test_operators_that_fell_back_are_counted(
    installed: Callable[[str], None],
    variant: VariantRecord,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    installed(PLUG_IN)
    wish = plugged(variant, "toy NPU 2", "toy NPU")
    with caplog.at_level(logging.WARNING):
        session = open_session(model(tmp_path), wish)
    found = placed(session, wish)
    assert (found.fell_back, list(found.absent)) == (1, ["toy NPU 2"])
    assert "1 of 4 operators do not run on toy NPU 2, toy NPU" in caplog.text
    assert "this runtime has no toy NPU 2" in caplog.text


def test_onnxruntime_without_the_wished_provider_says_so_loudly(
    variant: VariantRecord, onnx_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wish = msgspec.structs.replace(variant, providers=["QNNExecutionProvider"])
    with caplog.at_level(logging.WARNING):
        session = open_session(onnx_file, wish)
    assert session.placement == {"CPUExecutionProvider": 1}
    found = placed(session, wish)
    assert (found.fell_back, list(found.absent)) == (1, ["QNNExecutionProvider"])
    assert "this runtime has no QNNExecutionProvider" in caplog.text
    assert "CPUExecutionProvider" in session.runtime
    assert session.run(np.zeros((1, 4), np.float32)).shape == (1, 3)


def test_a_provider_that_is_there_and_takes_nothing_is_no_success(
    variant: VariantRecord, onnx_file: Path
) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no provider beside the CPU's")
    wish = msgspec.structs.replace(variant, providers=["AzureExecutionProvider"])
    session = open_session(onnx_file, wish)
    found = placed(session, wish)
    assert (found.fell_back, list(found.absent)) == (1, [])


def test_the_cpu_may_be_what_is_wished_for(
    variant: VariantRecord, onnx_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for providers in (msgspec.UNSET, ["CPUExecutionProvider"]):
        wish = msgspec.structs.replace(variant, providers=providers)
        found = placed(open_session(onnx_file, wish), wish)
        assert (found.fell_back, found.complaint) == (0, "")
    assert caplog.text == ""


def litert(variant: VariantRecord, folder: Path, *providers: str, **options: bool) -> VariantRecord:
    (folder / "model.tflite").write_bytes(tiny_tflite(WEIGHTS, BIAS, **options))
    return msgspec.structs.replace(
        variant, runtime="litert", providers=list(providers) or msgspec.UNSET
    )


@pytest.mark.parametrize(
    ("options", "placement", "fell_back"),
    [
        ({}, {"XNNPACK": 1}, 0),
        ({"resizable": False}, {"XNNPACK": 2}, 0),
        ({"normalised": True}, {"XNNPACK": 1, "built-in kernels": 1}, 1),
    ],
)
def test_litert_tells_what_its_delegate_left(
    variant: VariantRecord,
    tmp_path: Path,
    options: dict[str, bool],
    placement: dict[str, int],
    fell_back: int,
) -> None:
    wish = litert(variant, tmp_path, "XNNPACK", **options)
    session = open_session(tmp_path / "model.tflite", wish)
    assert session.placement == placement
    assert placed(session, wish).fell_back == fell_back


def test_litert_without_the_wished_delegate_says_so_loudly(
    variant: VariantRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wish = litert(variant, tmp_path, "libnothing_delegate.so")
    with caplog.at_level(logging.WARNING):
        session = open_session(tmp_path / "model.tflite", wish)
    found = placed(session, wish)
    assert (found.fell_back, list(found.absent)) == (1, ["libnothing_delegate.so"])
    assert "libnothing_delegate.so cannot be used" in caplog.text
    assert session.run(np.zeros((3, 4), np.float32)).shape == (3, 3)


def test_a_library_that_is_no_delegate_is_absent(variant: VariantRecord, tmp_path: Path) -> None:
    wish = litert(variant, tmp_path, "libm.so.6")
    session = open_session(tmp_path / "model.tflite", wish)
    assert list(session.absent) == ["libm.so.6"]


def test_what_is_counted_is_what_runs_elsewhere() -> None:
    found = judged({"NPU": 7, "CPU": 2}, ["NPU"], [])
    assert found.fell_back == 2
    assert found.complaint == "2 of 9 operators do not run on NPU"
    assert judged({"CPU": 9}, [], []).fell_back == 0
    assert judged({"CPU": 9}, [], []).complaint == ""


def test_the_manifest_carries_the_wish_and_a_release_what_came_of_it(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path)
    path = folder / manifests.MANIFEST
    before = path.read_bytes()
    assert b"providers" not in before, "manifests of targets without a wish stay as they were"
    manifest = manifests.parse(before)
    [one] = manifest.variants
    wish = msgspec.structs.replace(one, providers=["QNNExecutionProvider"])
    path.write_bytes(manifests.serialize(msgspec.structs.replace(manifest, variants=[wish])))
    release = LoadedRelease.open(folder, TARGET)
    assert list(release.placed.absent) == ["QNNExecutionProvider"]
    assert release.placed.fell_back == 1


@pytest.mark.parametrize("name", ["", "../x", "/lib/x.so", "a b", "x" * 65, "."])
def test_a_provider_is_a_plain_name(tmp_path: Path, name: str) -> None:
    folder = tiny_bundle(tmp_path)
    data = msgspec.json.decode((folder / manifests.MANIFEST).read_bytes())
    data["variants"][0]["providers"] = [name]
    with pytest.raises(InvalidBundle, match="providers"):
        manifests.parse(msgspec.json.encode(data))
