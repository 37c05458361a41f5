import msgspec
import numpy as np
import pytest

from converters.refusal import StageFailed
from converters.targets import int8_io, litert, open_target, tflm
from converters.targets.target import Target
from edge_core.errors import InvalidInput
from tests.converters.targets import networks
from tests.converters.targets.networks import Name

ROWS = 300


@pytest.fixture
def target() -> Target:
    return open_target("mcu-tflm")


def off_by(target: Target, name: Name, *, reference: bool) -> dict[str, np.ndarray]:
    """How many int8 steps the interpreter's answers are off LiteRT's, by output."""
    model = networks.tflite_int8(name, "int8")
    feeds = networks.rows(name, ROWS, seed=5)
    ran = target.run(target.compile(model), feeds, measure=True)
    assert ran is not None
    assert ran.latency_us == {}
    assert not ran.on_hardware
    expected = litert.runner(model, reference=reference)(feeds)
    scales = {
        spec.name: end.details["quantization"][0]
        for spec, end in zip(model.outputs, int8_io.file_ends.outputs(model), strict=True)
    }
    return {
        output: np.rint(np.abs(ran.outputs[output] - expected[output]) / scales[output])
        for output in expected
    }


def test_convolutions_answer_as_litert_does_bit_by_bit(target: Target) -> None:
    (steps,) = off_by(target, "convolutions", reference=True).values()

    assert steps.size == ROWS * 256
    assert not steps.any()


@pytest.mark.parametrize("name", ["mlp", "cnn", "two ends"])
def test_fully_connected_layers_are_off_by_one_step_at_ties(target: Target, name: Name) -> None:
    """The interpreter rounds a scaled sum twice, LiteRT's reference once."""
    for steps in off_by(target, name, reference=True).values():
        assert steps.max() <= 1
        assert steps.mean() < 0.02


def test_litert_fast_kernels_are_within_two_steps(target: Target) -> None:
    for steps in off_by(target, "cnn", reference=False).values():
        assert steps.max() <= 2


@pytest.mark.parametrize("name", ["mlp", "cnn", "two ends"])
def test_the_arena_is_the_smallest_that_works(
    target: Target, name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = networks.tflite_int8(name, "int8")
    compiled = target.compile(model)
    figures = target.estimate(compiled).figures
    arena = int(figures["arena_bytes"])
    feeds = networks.rows(name, 2, seed=5)

    assert figures["flash_bytes"] == len(model.data)
    monkeypatch.setattr(tflm, "LARGEST_ARENA", arena)
    assert target.run(compiled, feeds, measure=False) is not None
    monkeypatch.setattr(tflm, "LARGEST_ARENA", arena - 16)
    with pytest.raises(StageFailed):
        target.run(compiled, feeds, measure=False)


def test_operators_are_counted_and_int8(target: Target) -> None:
    placement = target.placement(target.compile(networks.tflite_int8("cnn", "int8")))

    assert placement.misplaced == ()
    assert placement.operators["TFLM int8/CONV_2D"] == 1
    assert placement.operators["TFLM int8/DEPTHWISE_CONV_2D"] == 2


def test_float_ends_are_refused(target: Target) -> None:
    with pytest.raises(StageFailed, match="args_0 is float32; quantise inputs"):
        target.compile(networks.tflite_int8("cnn", "float32"))


def test_float_operators_are_refused_by_name_unless_mixed(target: Target) -> None:
    model = networks.tflite_int8("sines", "int8")

    with pytest.raises(StageFailed, match=r"stayed in float: .*SIN"):
        target.compile(model)
    target.compile(msgspec.structs.replace(model, scheme="mixed"))


def test_operators_without_a_kernel_are_refused_by_name(target: Target) -> None:
    model = networks.with_operator(networks.tflite_int8("mlp", "int8"), "FULLY_CONNECTED", "RANK")

    with pytest.raises(StageFailed, match="cannot run operator RANK"):
        target.compile(model)


@pytest.mark.parametrize("kept", [0, 7, 100, 1000, 2000])
def test_damaged_files_are_refused(target: Target, kept: int) -> None:
    model = networks.tflite_int8("mlp", "int8")

    with pytest.raises(InvalidInput, match=r"damaged|no TFLite"):
        target.compile(msgspec.structs.replace(model, data=model.data[:kept]))
