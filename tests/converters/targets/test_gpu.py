from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import open_target, vulkan
from converters.targets.target import Target
from edge_core.errors import InvalidInput, Unavailable
from tests.converters.targets import networks
from tests.converters.targets.networks import Name

NAMES: list[Name] = ["mlp", "cnn", "two ends"]
FORMS: dict[str, Literal["onnx", "tflite"]] = {"gpu-webgpu-ort": "onnx", "gpu-litert": "tflite"}


def opened(name: str) -> Target:
    """The target, where there is a device for it."""
    target = open_target(name)
    if not target.tool().runs:
        pytest.skip(target.tool().missing)
    return target


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_float16_runs_on_the_device_and_errs_little(name: Name, form: str) -> None:
    target = opened(form)
    compiled = target.compile(networks.float16(name, FORMS[form]))
    feeds = networks.rows(name, 70, seed=5)

    ran = target.run(compiled, feeds, measure=True)

    assert ran is not None
    assert 0 < networks.error(ran.outputs, networks.reference(name, feeds)) < 0.005
    assert ran.on_hardware == vulkan.gpu()
    assert "llvmpipe" in ran.by or vulkan.gpu()
    assert ran.latency_us == {}


@pytest.mark.parametrize(
    ("form", "products"),
    [
        (
            "gpu-webgpu-ort",
            {"WebGpuExecutionProvider/Conv": 3, "WebGpuExecutionProvider/Gemm": 1},
        ),
        (
            "gpu-litert",
            {"GPU/CONV_2D": 1, "GPU/DEPTHWISE_CONV_2D": 2, "GPU/FULLY_CONNECTED": 1},
        ),
    ],
)
def test_every_operator_of_a_float16_file_is_on_the_device(
    form: str, products: dict[str, int]
) -> None:
    target = opened(form)

    placed = target.placement(target.compile(networks.float16("cnn", FORMS[form])))

    assert placed.misplaced == ()
    assert products.items() <= placed.operators.items()


def test_webgpu_leaves_int8_to_the_processor_and_that_is_seen() -> None:
    target = opened("gpu-webgpu-ort")

    placed = target.placement(target.compile(networks.onnx_int8("mlp")))

    assert placed.operators["CPUExecutionProvider/QuantizeLinear"] > 0
    assert any("QuantizeLinear" in name and "on CPU" in name for name in placed.misplaced)


@pytest.mark.skipif(vulkan.gpu(), reason="this machine has a GPU")
def test_without_a_device_files_are_made_and_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))
    target = open_target("gpu-litert")
    tool = target.tool()

    compiled = target.compile(networks.float16("mlp", "tflite"))

    assert (tool.compiles, tool.runs) == (True, False)
    assert "install-target gpu-litert" in tool.missing
    assert compiled.data == networks.float16("mlp", "tflite").data
    assert target.placement(compiled).operators == {}
    assert target.run(compiled, networks.rows("mlp", 4, seed=1), measure=False) is None


def test_without_the_provider_webgpu_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))

    with pytest.raises(Unavailable, match="serinus-convert install-target gpu-webgpu-ort"):
        open_target("gpu-webgpu-ort").compile(networks.float16("mlp", "onnx"))


def damaged(model: ModelFile, how: str) -> ModelFile:
    changes: dict[str, Any] = {
        "cut": {"data": model.data[:100]},
        "fewer inputs": {"inputs": ()},
    }
    return msgspec.structs.replace(model, **changes[how])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["cut", "fewer inputs"])
def test_files_that_are_not_what_they_should_be_are_refused(form: str, how: str) -> None:
    target = opened(form)

    with pytest.raises((InvalidInput, StageFailed)):
        target.compile(damaged(networks.float16("mlp", FORMS[form]), how))


@pytest.mark.parametrize("form", FORMS)
def test_files_of_another_format_are_refused(form: str) -> None:
    target = opened(form)
    other: Literal["onnx", "tflite"] = "tflite" if FORMS[form] == "onnx" else "onnx"

    with pytest.raises(StageFailed, match=f"takes {FORMS[form]} files, not {other}"):
        target.compile(networks.float16("mlp", other))


def test_a_gpu_is_known_by_its_node(tmp_path: Path) -> None:
    assert not vulkan.gpu(tmp_path)

    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "card0").touch()  # a display alone cannot compute
    assert not vulkan.gpu(tmp_path)

    (tmp_path / "dri" / "renderD128").touch()
    assert vulkan.gpu(tmp_path)
