import msgspec
import numpy as np
import pytest

from converters.refusal import StageFailed
from converters.targets import litert, open_target
from converters.targets.target import Target
from edge_core.errors import InvalidConfiguration, InvalidInput
from tests.converters.targets import networks

NPUS = ["npu-ethos-u55-128", "npu-ethos-u65-256", "npu-ethos-u85-256"]


@pytest.fixture
def target() -> Target:
    return open_target("npu-ethos-u55-128")


@pytest.mark.parametrize("npu", NPUS)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_every_operator_is_on_the_npu(npu: str, name: networks.Name) -> None:
    target = open_target(npu)
    placement = target.placement(target.compile(networks.tflite_int8(name, "int8")))

    assert placement.misplaced == ()
    assert placement.operators["NPU/FullyConnected"] == (2 if name == "mlp" else 1)
    assert all(place.startswith("NPU/") for place in placement.operators)


@pytest.mark.parametrize("npu", NPUS)
def test_equal_files_compile_to_equal_bytes(npu: str) -> None:
    target = open_target(npu)
    model = networks.tflite_int8("cnn", "int8")

    first, second = target.compile(model), target.compile(model)

    assert first.data != model.data
    assert first.data == second.data
    assert first.report == second.report


@pytest.mark.parametrize("npu", NPUS)
def test_the_estimate_is_that_of_vela(npu: str) -> None:
    target = open_target(npu)
    compiled = target.compile(networks.tflite_int8("cnn", "int8"))
    estimate = target.estimate(compiled)
    figures = estimate.figures

    assert estimate.by.startswith("vela 5.2.0, Ethos_U")
    assert figures["cycles"] > 0
    assert figures["inferences_per_second"] == pytest.approx(1e6 / figures["latency_us"])
    assert 0 < figures["sram_bytes"] <= target.profile.limits.sram_bytes
    assert figures["flash_bytes"] == len(compiled.data)


def test_operators_that_vela_leaves_to_the_processor_are_named_with_the_reason(
    target: Target,
) -> None:
    placement = target.placement(target.compile(networks.tflite_int8("sines", "int8")))

    assert placement.operators["CPU/SIN"] == 1
    assert placement.operators["NPU/FullyConnected"] == 2
    assert [text.split()[0] for text in placement.misplaced] == ["DEQUANTIZE", "SIN", "QUANTIZE"]
    assert placement.misplaced[1].endswith("on the CPU (Unsupported opType)")


def test_float_ends_are_left_to_the_processor(target: Target) -> None:
    placement = target.placement(target.compile(networks.tflite_int8("mlp", "float32")))

    assert [text.split()[0] for text in placement.misplaced] == ["QUANTIZE", "DEQUANTIZE"]


def test_a_float_model_is_on_the_processor_altogether_and_gets_no_time(target: Target) -> None:
    compiled = target.compile(networks.tflite_float("mlp"))

    assert target.placement(compiled).operators == {"CPU/FULLY_CONNECTED": 2}
    assert len(target.placement(compiled).misplaced) == 2
    assert "latency_us" not in target.estimate(compiled).figures
    assert target.estimate(compiled).figures["sram_bytes"] == 0


def test_less_sram_makes_vela_use_less(target: Target) -> None:
    model = networks.tflite_int8("cnn", "int8")
    limits = msgspec.structs.replace(target.profile.limits, sram_bytes=512)
    small = type(target)(msgspec.structs.replace(target.profile, limits=limits))

    ample = target.estimate(target.compile(model)).figures["sram_bytes"]
    assert small.estimate(small.compile(model)).figures["sram_bytes"] < ample


def test_rows_are_answered_by_the_file_before_compilation_and_that_is_said(
    target: Target,
) -> None:
    model = networks.tflite_int8("two ends", "int8")
    feeds = networks.rows("two ends", 20, seed=5)

    ran = target.run(target.compile(model), feeds, measure=True)

    assert ran is not None
    assert "the int8 file before compilation" in ran.by
    assert not ran.on_hardware
    assert ran.latency_us == {}
    for output, expected in litert.runner(model, reference=True)(feeds).items():
        assert np.array_equal(ran.outputs[output], expected)


def test_what_vela_refuses_is_told_in_one_line(target: Target) -> None:
    options = target.profile.options | {"system": "No_Such_System"}
    elsewhere = type(target)(msgspec.structs.replace(target.profile, options=options))

    with pytest.raises(StageFailed, match=r"vela ended with 1: .*No_Such_System") as refusal:
        elsewhere.compile(networks.tflite_int8("mlp", "int8"))
    assert "\n" not in str(refusal.value)


def test_a_profile_without_its_options_is_refused(target: Target) -> None:
    bare = type(target)(msgspec.structs.replace(target.profile, options={}))

    with pytest.raises(InvalidConfiguration, match=r"lacks options\.accelerator, options\.config"):
        bare.compile(networks.tflite_int8("mlp", "int8"))


def test_damaged_files_are_refused_before_vela_crashes_on_them(target: Target) -> None:
    model = networks.tflite_int8("cnn", "int8")

    with pytest.raises(InvalidInput, match="damaged"):
        target.compile(msgspec.structs.replace(model, data=model.data[:3000]))
