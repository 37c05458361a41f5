import platform
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import emulation, open_target
from converters.targets.target import Ran, Target
from edge_core.errors import Unavailable
from tests.converters.targets import networks
from tests.converters.targets.networks import Name

HERE = platform.machine()
native = pytest.mark.skipif(HERE != "x86_64", reason="the other processor is not emulated")


def answer(target: Target, model: ModelFile, name: Name, *, measure: bool = False) -> Ran:
    ran = target.run(target.compile(model), networks.rows(name, 100, seed=5), measure=measure)
    assert ran is not None
    return ran


@native
@pytest.mark.usefixtures("emulated_aarch64")
@pytest.mark.parametrize("runtime", ["ort", "tflite"])
@pytest.mark.parametrize("name", ["cnn", "two ends"])
def test_the_emulated_processor_answers_as_this_one_does(name: Name, runtime: str) -> None:
    model = networks.cpu_files(name)[runtime]

    here = answer(open_target(f"cpu-x86_64-{runtime}"), model, name)
    there = answer(open_target(f"cpu-aarch64-{runtime}"), model, name, measure=True)

    assert "aarch64 under qemu" in there.by
    assert not there.on_hardware
    assert there.latency_us == {}
    for output in here.outputs:
        assert np.array_equal(here.outputs[output], there.outputs[output])


@native
@pytest.mark.usefixtures("emulated_aarch64")
def test_the_emulated_onnxruntime_tells_what_it_fused() -> None:
    target = open_target("cpu-aarch64-ort")
    placement = target.placement(target.compile(networks.onnx_int8("cnn")))

    assert placement.misplaced == ()
    assert placement.operators["CPUExecutionProvider/QLinearConv"] == 3


@native
@pytest.mark.usefixtures("emulated_aarch64")
def test_an_emulated_runtime_that_dies_is_a_clear_refusal() -> None:
    target = open_target("cpu-aarch64-tflite")
    profile = msgspec.structs.replace(target.profile, options={"emulated_cpu": "cortex-a53"})

    with pytest.raises(StageFailed, match=r"emulated runtime ended with -4.*Illegal instruction"):
        answer(type(target)(profile), networks.cpu_files("mlp")["tflite"], "mlp")


@pytest.mark.skipif(HERE == "aarch64", reason="this machine is of the target's kind")
def test_a_missing_emulation_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))
    target = open_target("cpu-aarch64-ort")
    tool = target.tool()

    assert tool.compiles
    assert not tool.runs
    assert "serinus-convert install-target cpu-aarch64-ort" in tool.missing
    compiled = target.compile(networks.onnx_int8("mlp"))
    assert target.run(compiled, networks.rows("mlp", 2, seed=0), measure=False) is None
    assert f"as optimised on {HERE}" in next(iter(target.placement(compiled).operators))


@pytest.mark.skipif(HERE == "aarch64", reason="nothing is installed on the target's own kind")
def test_an_installation_without_packages_says_so_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which(emulation.QEMU) is None:
        pytest.skip(f"{emulation.QEMU} is missing")
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))
    monkeypatch.setattr(emulation, "DEBIAN", ("no-such-package-of-debian",))

    with pytest.raises(Unavailable, match=r"apt-get failed: .*install-target cpu-aarch64-ort"):
        open_target("cpu-aarch64-ort").install(lambda line: None)

    assert open_target("cpu-aarch64-ort").tool().missing


def test_the_worker_needs_nothing_of_this_project(tmp_path: Path) -> None:
    worker = Path(emulation.__file__).parent / "workers" / "emulated.py"
    (tmp_path / "model.onnx").write_bytes(networks.cpu_files("mlp")["ort"].data)

    subprocess.run(
        [sys.executable, str(worker), "model.onnx", "optimised.onnx"],
        cwd=tmp_path,
        env={},
        check=True,
    )

    assert (tmp_path / "optimised.onnx").stat().st_size > 0
