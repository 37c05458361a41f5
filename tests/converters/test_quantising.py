"""Schemes, methods, formats: what comes out, and what is refused."""

import hashlib
import os
import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from converters import host, onnx_weights, quantising, tflite_graph
from converters.quantising import Wanted, largest_error
from converters.quiet import silenced
from converters.refusal import StageFailed
from edge_core.errors import InvalidInput
from tests.converters import small
from tests.converters.placing import placed

FORMATS = ("onnx", "tflite")
SCHEMES = ("int8 static", "int8 weight-only", "fp16", "float32")


def quantised(file, rows=None, **wanted):
    # 7-bit weights: any processor answers as accurately, also one without VNNI.
    wanted = {"scheme": "int8 static", "method": "min/max", "reduce_range": True} | wanted
    with silenced():
        return quantising.quantise(
            file, small.rows(file) if rows is None else rows, Wanted(**wanted)
        )


def error(floats, made, rows=None):
    rows = small.rows(floats, seed=9) if rows is None else rows
    return largest_error(host.runner(floats)(rows), host.runner(made)(rows))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("scheme", "size", "limit"),
    [
        ("int8 static", 0.35, 0.05),
        ("int8 weight-only", 0.35, 0.03),
        ("fp16", 0.55, 0.002),
        ("float32", 1.0, 0.0),
    ],
)
def test_size_and_error_of_each_scheme(form, scheme, size, limit):
    floats = small.plain_file(form, width=128, depth=3)
    made = quantised(floats, scheme=scheme)
    assert len(made.data) <= size * len(floats.data)
    assert error(floats, made) <= limit
    assert made.scheme == made.settings["scheme"] == scheme
    assert made.float_layers == ()
    assert (made.inputs, made.outputs) == (floats.inputs, floats.outputs)


@pytest.mark.parametrize("form", FORMATS)
def test_auto_keeps_the_method_with_the_least_error(form):
    floats = small.plain_file(form)
    made = quantised(floats, method="auto")
    errors = {
        name.removeprefix("error "): value
        for name, value in made.settings.items()
        if name.startswith("error ")
    }
    assert set(errors) == {"min/max", "percentile", "entropy"}
    chosen = made.settings["calibration"]
    assert errors[chosen] == min(errors.values())
    # The trial learns from some rows, the file from all.
    assert made.data == quantised(floats, method=chosen).data


@pytest.mark.parametrize("form", FORMATS)
def test_an_outlier_in_calibration_does_not_spoil_auto(form):
    floats = small.plain_file(form)
    rows = small.rows(floats, 256)
    rows["features"][0] *= 60  # the first row is one that ranges are learned from
    spoilt = quantised(floats, rows, method="min/max")
    made = quantised(floats, rows, method="auto")
    assert made.settings["calibration"] in ("percentile", "entropy")
    assert error(floats, made) < 0.5 * error(floats, spoilt)


@pytest.mark.parametrize("form", FORMATS)
def test_true_extremes_do_not_depend_on_the_order_of_rows(form):
    # A moving average, as the stock calibration has it, forgets the first rows.
    floats = small.plain_file(form)
    rows = small.rows(floats)
    order = np.argsort(np.abs(rows["features"]).max(axis=1))
    shrinking = {"features": np.ascontiguousarray(rows["features"][order[::-1]])}
    growing = {"features": np.ascontiguousarray(rows["features"][order])}
    assert quantised(floats, shrinking).data == quantised(floats, growing).data


@pytest.mark.parametrize("form", FORMATS)
def test_raw_features_stay_accurate_behind_their_scaling(form):
    model = small.with_scaling(small.plain())
    floats = small.export_file(model, form)
    rows = small.raw_rows()
    made = quantised(floats, rows)
    assert error(floats, made, rows) < 0.03
    assert placed(made).misplaced == ()


def test_a_scaling_that_was_cut_off_is_applied_to_calibration_rows():
    model = small.with_scaling(small.plain())
    floats = small.cut(model, "tflite")
    rows = small.raw_rows()
    made = quantised(floats, rows, io="int8")
    assert made.scaling == floats.scaling
    assert error(floats, made, rows) < 0.03


def test_int8_through_and_through():
    floats = small.plain_file("tflite")
    made = quantised(floats, io="int8")
    operators = tflite_graph.operators(made.data)
    types = {tensor.dtype for step in operators for tensor in (*step.inputs, *step.outputs)}
    assert types == {"INT8", "INT32"}
    assert set(placed(made).operators) == {"CPU int8/FULLY_CONNECTED"}


def test_float32_inputs_are_quantised_inside():
    made = quantised(small.plain_file("tflite"))
    kinds = placed(made).operators
    assert kinds["CPU int8/FULLY_CONNECTED"] == 3
    assert sum(kinds.values()) == 5  # and one conversion at either end


def test_an_operator_without_an_int8_form_is_refused_for_int8_targets():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = small.dense(nn.Linear(8, 16), Sine(), nn.Linear(16, 4))
    floats = small.export_file(model, "tflite")
    with pytest.raises(StageFailed, match=r"operator SIN of 1 has no int8 form"):
        quantised(floats, io="int8")
    made = quantised(floats)
    assert made.float_layers == ()
    assert error(floats, made) < 0.05


class Sine(nn.Module):
    def forward(self, rows):
        return rows.sin()


@pytest.mark.parametrize("form", FORMATS)
def test_the_graph_that_runs_has_no_product_in_float(form):
    made = quantised(small.plain_file(form))
    assert placed(made).misplaced == ()


def test_a_float_file_is_all_misplaced():
    for form in FORMATS:
        sold = msgspec.structs.replace(small.plain_file(form), scheme="int8 static")
        assert len(placed(sold).misplaced) == 3


@pytest.mark.parametrize("form", FORMATS)
def test_kept_layers_stay_in_float(form):
    floats = small.plain_file(form)
    made = quantised(floats, keep_float=("2",))
    assert made.scheme == "mixed"
    assert made.float_layers == ("2",)
    assert placed(made).misplaced == ()
    sold = msgspec.structs.replace(made, scheme="int8 static")
    assert len(placed(sold).misplaced) == 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("scheme", ["int8 weight-only", "fp16"])
def test_kept_layers_stay_in_float_in_other_schemes(form, scheme):
    made = quantised(small.plain_file(form), scheme=scheme, keep_float=("2",))
    assert made.float_layers == ("2",)


def test_reduced_range_leaves_a_bit_of_headroom():
    floats = small.plain_file("onnx")
    largest = {}
    for reduce_range in (False, True):
        made = quantised(floats, reduce_range=reduce_range)
        assert made.settings["reduce_range"] is reduce_range
        largest[reduce_range] = max(
            int(np.abs(numpy_helper.to_array(tensor).astype(int)).max())
            for tensor in onnx.load_model_from_string(made.data).graph.initializer
            if tensor.name.endswith("weight_quantized")
        )
    assert largest == {False: 127, True: 64}


def test_reduced_range_keeps_pairs_of_products_within_16_bits():
    # What x86 without VNNI adds up in 16 bits: two products of an 8-bit value and a weight. This
    # follows the arithmetic, as processors with VNNI do not saturate and cannot show it.
    floats = small.plain_file("onnx")
    worst = {}
    for reduce_range in (False, True):
        made = quantised(floats, reduce_range=reduce_range)
        weights = np.concatenate(
            [
                numpy_helper.to_array(tensor).astype(int)
                for tensor in onnx.load_model_from_string(made.data).graph.initializer
                if tensor.name == "2.weight_quantized"
            ]
        )
        pairs = weights[:, 0::2] + weights[:, 1::2]
        worst[reduce_range] = int(np.abs(255 * pairs).max())
    assert worst[False] > np.iinfo(np.int16).max >= worst[True]


def test_weights_are_quantised_per_channel():
    weights = np.float32([[1.0, -2.0], [100.0, 50.0]])
    values, scales = onnx_weights.to_int8(weights, 0)
    np.testing.assert_array_equal(values, [[64, -127], [127, 64]])
    np.testing.assert_allclose(scales, [2 / 127, 100 / 127], rtol=1e-6)
    np.testing.assert_allclose(onnx_weights.to_int8(weights * 0, 1)[0], 0)


def test_one_row_fixes_the_batch():
    made = quantised(small.plain_file("onnx"), batch="one")
    proto = onnx.load_model_from_string(made.data)
    shapes = [v.type.tensor_type.shape.dim for v in (*proto.graph.input, *proto.graph.output)]
    assert [[dim.dim_value for dim in shape] for shape in shapes] == [[1, 8], [1, 4]]


@pytest.mark.parametrize("scheme", SCHEMES[:3])
def test_onnx_files_are_sound(scheme):
    proto = onnx.load_model_from_string(quantised(small.plain_file("onnx"), scheme=scheme).data)
    onnx.checker.check_model(proto, full_check=True)
    assert not proto.doc_string
    assert proto.producer_name == "serinus"


DIGESTS = """
import hashlib, sys
from tests.converters.test_quantising import FORMATS, SCHEMES, quantised, small
for form in FORMATS:
    for scheme in SCHEMES:
        data = quantised(small.plain_file(form), scheme=scheme, method="auto").data
        print(hashlib.sha256(data).hexdigest())
"""


def test_bytes_are_the_same_in_another_process():
    here = [
        hashlib.sha256(quantised(small.plain_file(f), scheme=s, method="auto").data).hexdigest()
        for f in FORMATS
        for s in SCHEMES
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in done.stdout.split() if len(line) == 64] == here
    assert len(set(here)) == len(here)


@pytest.mark.parametrize("form", FORMATS)
def test_unfit_rows_are_refused(form):
    floats = small.plain_file(form)
    rows = small.rows(floats)
    spoilt = {"features": rows["features"].copy()}
    spoilt["features"][5, 3] = np.nan
    with pytest.raises(InvalidInput, match="row 5"):
        quantised(floats, spoilt)
    with pytest.raises(InvalidInput, match="at least 32"):
        quantised(floats, {"features": rows["features"][:31]})


@pytest.mark.parametrize("scheme", ["int8 weight-only", "fp16", "float32"])
def test_schemes_without_ranges_need_no_rows(scheme):
    assert quantised(small.plain_file("onnx"), {}, scheme=scheme).scheme == scheme


def test_onnx_takes_no_int8_inputs():
    with pytest.raises(StageFailed, match="float32"):
        quantised(small.plain_file("onnx"), io="int8")


def test_unknown_layers_are_refused():
    with pytest.raises(InvalidInput, match="layers are 0, 2, 4"):
        quantised(small.plain_file("onnx"), keep_float=("6",))


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_without_products_is_refused(form):
    floats = small.export_file(small.dense(nn.ReLU(), features=4), form)
    with pytest.raises(StageFailed, match="no product"):
        quantised(floats)


def test_the_float_file_stays_as_it_is():
    floats = small.plain_file("onnx")
    before = msgspec.json.encode(floats)
    quantised(floats, method="auto")
    assert msgspec.json.encode(floats) == before
