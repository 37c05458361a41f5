"""Ordinary architectures in static int8: error, placement, what stays in float."""

import pytest

from converters import host, quantising
from converters.converting import Quantise, ToQuantise
from converters.quantising import Wanted, largest_error
from converters.quiet import silenced
from tests.converters import small
from tests.converters.placing import placed

STATIC = Wanted(scheme="int8 static", method="min/max", reduce_range=True)
"""With 7-bit weights, so that any processor answers as accurately, also one without VNNI."""


def quantised(name, form, wanted=STATIC):
    floats = small.from_corpus(name, form)
    with silenced():
        made = quantising.quantise(floats, small.rows(floats), wanted)
        rows = small.rows(floats, seed=8)
        return made, largest_error(host.runner(floats)(rows), host.runner(made)(rows))


@pytest.mark.parametrize("name", ["residual", "windows", "two-inputs", "transformer"])
def test_in_onnx_every_product_runs_in_int8(name):
    made, error = quantised(name, "onnx")
    assert error <= 0.05
    assert made.float_layers == ()
    placement = placed(made)
    assert placement.misplaced == ()
    assert not any(kind.endswith("/Conv") for kind in placement.operators)


@pytest.mark.parametrize("name", ["residual", "windows", "two-inputs", "transformer"])
@pytest.mark.parametrize("io", ["float32", "int8"])
def test_in_tflite_every_product_runs_in_int8(name, io):
    made, error = quantised(name, "tflite", Wanted(scheme="int8 static", method="min/max", io=io))
    assert error <= 0.05
    assert made.float_layers == ()
    placement = placed(made)
    assert placement.misplaced == ()
    if io == "int8":
        assert all(kind.startswith("CPU int8/") for kind in placement.operators)


def test_residual_sums_and_pools_stay_in_int8():
    kinds = placed(quantised("residual", "onnx")[0]).operators
    assert kinds["CPUExecutionProvider/QLinearAdd"] == 2
    # In at the input, and around the mean at the end, which has no int8 kernel.
    assert kinds["CPUExecutionProvider/QuantizeLinear"] == 2
    assert kinds["CPUExecutionProvider/DequantizeLinear"] == 2


def test_a_gru_stays_in_float_in_onnx_and_is_refused_by_name():
    made, error = quantised("gru", "onnx")
    assert error <= 0.05
    assert made.scheme == "int8 static"
    assert made.float_layers == ("cells",)
    (misplaced,) = placed(made).misplaced
    assert misplaced.startswith("GRU cells (float32: onnxruntime has no int8 kernel")


def test_a_gru_that_is_kept_in_float_by_name_is_not_misplaced():
    wanted = Wanted(scheme="int8 static", method="min/max", keep_float=("cells",))
    made, _ = quantised("gru", "onnx", wanted)
    assert (made.scheme, made.float_layers) == ("mixed", ("cells",))
    assert placed(made).misplaced == ()


def test_a_gru_is_called_mixed_where_that_is_allowed():
    floats = small.from_corpus("gru", "onnx")
    given = ToQuantise(file=floats, calibration=small.rows(floats), wanted=STATIC, limit=0.05)
    with silenced():
        made = Quantise().run(given)
    assert (made.scheme, made.float_layers) == ("mixed", ("cells",))
    assert placed(made).misplaced == ()


def test_a_gru_runs_in_int8_in_tflite():
    made, error = quantised("gru", "tflite")
    assert error <= 0.05
    assert made.float_layers == ()


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_an_embedding_is_stored_in_int8(form):
    made, error = quantised("tokens", form)
    assert error <= 0.05
    assert made.float_layers == ()
