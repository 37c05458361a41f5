"""Runs a model file on this machine, to measure what quantising lost."""

from typing import Any


from converters.model_file import ModelFile, Runner
from converters.targets import int8_io
from converters.tensors import Array, Feeds, TensorSpec, rows_of

ERRORS_ONLY = 3


def runner(model: ModelFile) -> Runner:
    """Load once, run often: unscaled rows in, float32 rows out, one thread.

    Where the file takes scaled int8 rows, scaling and quantising are done here, as the device
    does them.
    """
    return _onnx(model) if model.format == "onnx" else _tflite(model)


def _onnx(model: ModelFile) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.outputs]

    def answer(feeds: Feeds) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return answer


def _tflite(model: ModelFile) -> Runner:
    planned: dict[int, Any] = {}

    def answer(feeds: Feeds) -> dict[str, Array]:
        rows = rows_of(feeds)
        if rows not in planned:
            planned[rows] = interpreter(model.data, rows)
        return invoke(planned[rows], model, feeds)

    return answer


def interpreter(data: bytes, rows: int) -> Any:
    """A LiteRT interpreter laid out for so many rows, inputs in the order of their places."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=data, num_threads=1)
    for details in made.get_input_details():
        made.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
    made.allocate_tensors()
    return made


def invoke(made: Any, model: ModelFile, feeds: Feeds) -> dict[str, Array]:
    """Feed, run and read an interpreter, int8 at its ends included."""
    for details, spec in zip(in_order(made.get_input_details()), model.inputs, strict=True):
        given = int8_io.scaled(feeds[spec.name], model.scaling)
        made.set_tensor(details["index"], int8_io.quantised(given, details))
    made.invoke()
    outputs = in_order(made.get_output_details())
    return {
        spec.name: int8_io.dequantised(made.get_tensor(details["index"]), details)
        for details, spec in zip(outputs, model.outputs, strict=True)
    }


def in_order(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tensors in the order of their places: the tool names them ``..._0`` and so on."""

    def place(entry: dict[str, Any]) -> int:
        digits = [int(part) for part in str(entry["name"]).replace(":", "_").split("_") if part.isdigit()]
        return digits[0] if digits else 0

    return sorted(details, key=place)
