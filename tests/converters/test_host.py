"""Running files here: names, rows, scaling, int8 inputs and outputs."""

import msgspec
import numpy as np
import pytest

from converters import host, quantising
from converters.quantising import Wanted, largest_error
from converters.quiet import silenced
from converters.refusal import StageFailed
from edge_core.bundle.manifest import InputScaling
from edge_core.errors import InvalidInput
from tests.converters import small
from tests.converters.corpus import CORPUS

FORMATS = ("onnx", "tflite")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["two-inputs", "two-heads", "tokens"])
def test_float_files_answer_as_torch_by_name(name, form):
    file = small.from_corpus(name, form)
    rows = small.rows(file, 7)
    answered = host.runner(file)(rows)
    expected = CORPUS[name]().model.run(rows)
    assert list(answered) == [spec.name for spec in file.outputs]
    for key, array in expected.items():
        assert answered[key].shape == array.shape
        np.testing.assert_allclose(answered[key], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_answers_do_not_depend_on_how_many_rows_come_at_once(form):
    file = small.plain_file(form)
    rows = small.rows(file, host.BATCH + 3)["features"]
    run = host.runner(file)
    together = run({"features": rows})["logits"]
    alone = np.concatenate([run({"features": rows[i : i + 1]})["logits"] for i in range(5)])
    assert together.shape == (host.BATCH + 3, 4)
    np.testing.assert_allclose(together[:5], alone, rtol=1e-4, atol=1e-5)


def test_a_tflite_file_that_cannot_be_resized_is_run_row_by_row():
    file = small.from_corpus("gru", "tflite")
    rows = small.rows(file, 5)
    np.testing.assert_allclose(
        host.runner(file)(rows)["logits"],
        CORPUS["gru"]().model.run(rows)["logits"],
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_give_empty_answers_of_the_right_shape(form):
    file = small.plain_file(form)
    answered = host.runner(file)({"features": np.zeros((0, 8), np.float32)})
    assert answered["logits"].shape == (0, 4)


def test_an_onnx_file_of_one_row_takes_many():
    file = small.plain_file("onnx")
    one = msgspec.structs.replace(file, data=quantising.one_row(file.data))
    rows = small.rows(file, 6)
    np.testing.assert_allclose(
        host.runner(one)(rows)["logits"], host.runner(file)(rows)["logits"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("form", FORMATS)
def test_scaling_that_was_cut_off_is_applied(form):
    model = small.with_scaling(small.plain())
    rows = small.raw_rows()
    answered = host.runner(small.cut(model, form))(rows)
    assert largest_error(model.run(rows), answered) < 1e-5


def test_int8_inputs_and_outputs_are_hidden_from_the_caller():
    model = small.with_scaling(small.plain())
    rows = small.raw_rows()
    with silenced():
        made = quantising.quantise(
            small.cut(model, "tflite"), rows, Wanted(scheme="int8 static", io="int8")
        )
    answered = host.runner(made)(rows)["logits"]
    assert answered.dtype == np.float32
    # More distinct values than one row's four logits: dequantised, not cast.
    assert largest_error(model.run(rows), {"logits": answered}) < 0.05


def test_scaling_clips_to_its_limit():
    scaling = InputScaling(shape=[2], mean=[1.0, 0.0], gain=[10.0, 1.0], limit=3.0)
    found = host.scaled({"x": np.float32([[2.0, -1.0], [1.1, -9.0]])}, scaling)["x"]
    np.testing.assert_allclose(found, [[3.0, -1.0], [1.0, -3.0]], rtol=1e-6)


def test_scaling_of_several_inputs_is_refused():
    scaling = InputScaling(shape=[1], mean=[0.0], gain=[1.0], limit=1.0)
    rows = {"a": np.zeros((1, 1), np.float32), "b": np.zeros((1, 1), np.float32)}
    with pytest.raises(InvalidInput, match="one input"):
        host.scaled(rows, scaling)


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_refused(form):
    file = small.plain_file(form)
    broken = msgspec.structs.replace(file, data=file.data[: len(file.data) // 2])
    with silenced(), pytest.raises(StageFailed, match="does not load"):
        host.runner(broken)


@pytest.mark.parametrize("form", FORMATS)
def test_missing_inputs_are_named(form):
    run = host.runner(small.from_corpus("two-inputs", form))
    with pytest.raises(InvalidInput, match="vector"):
        run({"image": np.zeros((1, 1, 16, 16), np.float32)})
