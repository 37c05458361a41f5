import platform

import msgspec
import numpy as np
import pytest

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import open_target
from converters.targets.target import Ran, Target
from edge_core.bundle.manifest import InputScaling
from edge_core.errors import InvalidInput
from tests.converters.targets import networks
from tests.converters.targets.networks import Name

HERE = platform.machine()
NAMES: list[Name] = ["mlp", "cnn", "two ends"]
native = pytest.mark.skipif(HERE != "x86_64", reason="the other processor is not emulated")


def run(target: Target, model: ModelFile, name: Name, *, measure: bool = False) -> Ran:
    ran = target.run(target.compile(model), networks.rows(name, 100, seed=5), measure=measure)
    assert ran is not None
    return ran


@native
@pytest.mark.parametrize("runtime", ["ort", "tflite"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_float_model_but_for_int8_steps(name: Name, runtime: str) -> None:
    ran = run(open_target(f"cpu-x86_64-{runtime}"), networks.cpu_files(name)[runtime], name)

    expected = networks.reference(name, networks.rows(name, 100, seed=5))
    assert ran.on_hardware
    assert ran.latency_us == {}
    assert ran.outputs.keys() == expected.keys()
    for output, reference in expected.items():
        assert ran.outputs[output].dtype == np.float32
        assert np.sqrt(np.mean((ran.outputs[output] - reference) ** 2)) < 0.1 * reference.std()


@native
@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_latency_is_measured_by_batch_size_on_hardware(runtime: str) -> None:
    ran = run(
        open_target(f"cpu-x86_64-{runtime}"),
        networks.cpu_files("mlp")[runtime],
        "mlp",
        measure=True,
    )

    assert list(ran.latency_us) == ["1", "16", "64"]
    assert all(microseconds > 0 for microseconds in ran.latency_us.values())


@native
def test_a_file_whose_shapes_hold_their_batch_answers_row_by_row() -> None:
    target = open_target("cpu-x86_64-tflite")
    compiled = target.compile(networks.tflite_int8("cnn", "float32"))
    feeds = networks.rows("cnn", 3, seed=2)

    together = target.run(compiled, feeds, measure=False)
    alone = [
        target.run(compiled, {"image": feeds["image"][row : row + 1]}, measure=False)
        for row in range(3)
    ]

    assert together is not None
    assert all(ran is not None for ran in alone)
    joined = np.concatenate([ran.outputs["logits"] for ran in alone if ran is not None])
    assert np.array_equal(together.outputs["logits"], joined)


@native
@pytest.mark.parametrize("name", NAMES)
def test_int8_ends_answer_as_float_ends_do(name: Name) -> None:
    target = open_target("cpu-x86_64-tflite")

    floats = run(target, networks.tflite_int8(name, "float32"), name)
    steps = run(target, networks.tflite_int8(name, "int8"), name)

    for output in floats.outputs:
        assert np.allclose(floats.outputs[output], steps.outputs[output], rtol=0, atol=1e-6)


@native
def test_rows_are_scaled_where_the_scaling_was_cut_off() -> None:
    target = open_target("cpu-x86_64-tflite")
    model = networks.tflite_int8("mlp", "int8")
    feeds = networks.rows("mlp", 50, seed=3)
    gain = np.float32(1 / 3)
    scaling = InputScaling(shape=[1], mean=[7.0], gain=[float(gain)], limit=1.5)
    cut = msgspec.structs.replace(model, scaling=scaling)

    raw = target.run(target.compile(cut), feeds, measure=False)
    by_hand = np.clip((feeds["features"] - np.float32(7)) * gain, -1.5, 1.5).astype(np.float32)
    scaled = target.run(target.compile(model), {"features": by_hand}, measure=False)

    assert raw is not None
    assert scaled is not None
    assert np.array_equal(raw.outputs["logits"], scaled.outputs["logits"])


def test_another_processor_cannot_run_here() -> None:
    target = open_target("cpu-x86_64-ort")
    elsewhere = msgspec.structs.replace(target.profile, machine="riscv64")
    tool = type(target)(elsewhere).tool()

    assert not tool.runs
    assert "riscv64 only" in tool.missing


@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_files_that_are_not_what_they_are_described_as_are_refused(runtime: str) -> None:
    target = open_target(f"cpu-{HERE}-{runtime}")
    model = networks.cpu_files("two ends")[runtime]
    fewer = msgspec.structs.replace(model, inputs=model.inputs[:1])

    with pytest.raises(StageFailed, match="the file's input"):
        target.compile(fewer)
    with pytest.raises(StageFailed, match="takes"):
        target.compile(networks.cpu_files("mlp")["tflite" if runtime == "ort" else "ort"])


@pytest.mark.parametrize("kept", [0, 7, 100, 2000])
def test_damaged_files_are_refused(kept: int) -> None:
    for runtime, model in networks.cpu_files("mlp").items():
        target = open_target(f"cpu-{HERE}-{runtime}")
        with pytest.raises((InvalidInput, StageFailed)):
            target.compile(msgspec.structs.replace(model, data=model.data[:kept]))
