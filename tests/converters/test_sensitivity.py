"""Ranking layers by their error, and leaving the fewest in float."""

import msgspec
import pytest

from converters import host, sensitivity
from converters.quantising import Wanted, largest_error
from converters.quiet import silenced
from converters.refusal import StageFailed
from edge_core.errors import InvalidInput
from tests.converters import small
from tests.converters.placing import placed

FORMATS = ("onnx", "tflite")
STATIC = Wanted(scheme="int8 static", method="min/max", reduce_range=True)
"""With 7-bit weights, so that any processor answers as accurately, also one without VNNI."""
LIMIT = 0.05


@pytest.fixture(scope="module")
def bad():
    return {form: small.export_file(small.with_bad_layer(), form) for form in FORMATS}


def judge(floats, rows, asked=None):
    expected = host.runner(floats)(rows)

    def passes(file):
        if asked is not None:
            asked.append(file.float_layers)
        return largest_error(expected, host.runner(file)(rows)) <= LIMIT

    return passes


@pytest.mark.parametrize("form", FORMATS)
def test_the_bad_layer_ranks_first_by_far(bad, form):
    with silenced():
        errors = sensitivity.layer_errors(bad[form], small.rows(bad[form]), STATIC)
    assert list(errors) == sorted(errors, key=lambda name: -errors[name])
    assert set(errors) == {"0", "2", "4", "6"}
    first, second = list(errors.values())[:2]
    assert next(iter(errors)) == small.BAD
    assert first > 10 * second


@pytest.mark.parametrize("form", FORMATS)
def test_exactly_the_bad_layer_stays_in_float(bad, form):
    floats = bad[form]
    rows = small.rows(floats)
    passes = judge(floats, rows)
    with silenced():
        made = sensitivity.mixed(floats, rows, STATIC, passes)
    assert made.scheme == made.settings["scheme"] == "mixed"
    assert made.float_layers == (small.BAD,)
    assert passes(made)
    assert placed(made).misplaced == ()
    sold = msgspec.structs.replace(made, scheme="int8 static")
    assert len(placed(sold).misplaced) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_layer_kept_by_request_is_not_quantised_by_the_runtime(bad, form):
    # onnxruntime quantises float products between int8 ones itself, unless it is kept from it.
    floats = bad[form]
    rows = small.rows(floats)
    wanted = Wanted(scheme="int8 static", method="min/max", keep_float=(small.BAD,))
    with silenced():
        made = sensitivity.mixed(floats, rows, wanted, judge(floats, rows))
    assert made.scheme == "mixed"
    assert made.float_layers == (small.BAD,)


def test_nothing_stays_in_float_where_the_gate_passes_at_once():
    floats = small.plain_file("onnx")
    rows = small.rows(floats)
    asked: list[tuple[str, ...]] = []
    with silenced():
        made = sensitivity.mixed(floats, rows, STATIC, judge(floats, rows, asked))
    assert made.scheme == "int8 static"
    assert made.float_layers == ()
    assert asked == [()]


def test_needless_layers_are_taken_back():
    # The gate wants the least sensitive layer in float, and no other: the whole order is needed
    # to reach it, and all but it can be quantised again.
    floats = small.plain_file("onnx")
    rows = small.rows(floats)
    with silenced():
        last = list(sensitivity.layer_errors(floats, rows, STATIC))[-1]
        made = sensitivity.mixed(floats, rows, STATIC, lambda file: last in file.float_layers)
    assert made.float_layers == (last,)


@pytest.mark.parametrize("form", FORMATS)
def test_a_gate_that_even_float_fails_stops_the_build(form):
    floats = small.plain_file(form)
    with silenced(), pytest.raises(StageFailed, match="even with every layer in float"):
        sensitivity.mixed(floats, small.rows(floats), STATIC, lambda file: False)


def test_a_target_without_float_cannot_be_mixed():
    floats = small.plain_file("tflite")
    wanted = Wanted(scheme="int8 static", method="min/max", io="int8")
    with silenced(), pytest.raises(StageFailed, match="int8 only"):
        sensitivity.mixed(floats, small.rows(floats), wanted, lambda file: False)


def test_unknown_layers_are_named():
    floats = small.plain_file("onnx")
    wanted = Wanted(scheme="int8 static", keep_float=("nowhere",))
    with pytest.raises(InvalidInput, match="no layer nowhere"):
        sensitivity.layer_errors(floats, small.rows(floats), wanted)
