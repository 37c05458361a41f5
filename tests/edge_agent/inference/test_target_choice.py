from pathlib import Path

import msgspec
import pytest

from edge_agent.inference import target_choice
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle
from tests.simulators.tiny_bundle import tiny_bundle


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """With variants for two processors, two runtimes and one accelerator."""
    plain = folders.read(tiny_bundle(tmp_path / "bundle"))
    (one,) = plain.variants
    targets = {
        "npu-rk3588": "rknn",
        "cpu-aarch64-tflite": "litert",
        "cpu-x86_64-tflite": "litert",
        "cpu-x86_64-ort": "onnxruntime",
    }
    variants = [
        msgspec.structs.replace(one, target=target, runtime=runtime)
        for target, runtime in targets.items()
    ]
    return msgspec.structs.replace(plain, variants=variants)


@pytest.mark.parametrize(
    ("machine", "runtimes", "target"),
    [
        ("x86_64", {"onnxruntime", "litert"}, "cpu-x86_64-tflite"),
        ("x86_64", {"onnxruntime"}, "cpu-x86_64-ort"),
        ("AMD64", {"onnxruntime"}, "cpu-x86_64-ort"),
        ("arm64", {"litert"}, "cpu-aarch64-tflite"),
    ],
)
def test_the_first_variant_that_runs_here_is_taken(
    manifest: Manifest, machine: str, runtimes: set[str], target: str
) -> None:
    assert target_choice.choose(manifest, machine, runtimes) == target


@pytest.mark.parametrize(
    ("machine", "runtimes", "said"),
    [
        ("riscv64", {"onnxruntime"}, "no variant for this machine (riscv64); it has npu-rk3588, "),
        ("aarch64", {"onnxruntime"}, "needs the runtime litert, which is not installed"),
    ],
)
def test_what_runs_nothing_is_told_what_there_is(
    manifest: Manifest, machine: str, runtimes: set[str], said: str
) -> None:
    with pytest.raises(InvalidBundle) as refused:
        target_choice.choose(manifest, machine, runtimes)
    assert said in str(refused.value)


def test_a_named_target_is_never_doubted(manifest: Manifest) -> None:
    assert target_choice.chosen(manifest, "npu-rk3588") == "npu-rk3588"


def test_runtimes_of_this_environment_are_found() -> None:
    assert {"onnxruntime", "litert"} == target_choice.installed()
