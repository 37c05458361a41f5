"""Runs a model file on this machine, to measure what quantising lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.model_file import ModelFile, Runner
from converters.targets import int8_io
from converters.tensors import Array, Feeds, TensorSpec, rows_of, take

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
        try:
            if rows not in planned:
                planned[rows] = interpreter(model.data, rows)
            return invoke(planned[rows], model, feeds)
        except RuntimeError:
            if rows == 1:
                raise
        # The file holds its batch of one in a constant.
        parts = [answer(take(feeds, [row])) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return answer


def interpreter(data: bytes, rows: int, *, keep: bool = False) -> Any:
    """A LiteRT interpreter laid out for so many rows; ``keep`` keeps all tensors readable."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(
        model_content=data,
        num_threads=1,
        experimental_preserve_all_tensors=keep,
        experimental_op_resolver_type=(
            OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep else OpResolverType.AUTO
        ),
    )
    for details in made.get_input_details():
        made.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
    made.allocate_tensors()
    return made


def invoke(made: Any, model: ModelFile, feeds: Feeds) -> dict[str, Array]:
    """Feed, run and read an interpreter, int8 at its ends included."""
    for spec, details in zip(model.inputs, inputs(made, model), strict=True):
        given = int8_io.scaled(feeds[spec.name], model.scaling)
        made.set_tensor(details["index"], int8_io.quantised(given, details))
    made.invoke()
    return {
        spec.name: int8_io.dequantised(made.get_tensor(details["index"]), details)
        for spec, details in zip(model.outputs, outputs(made, model), strict=True)
    }


def inputs(made: Any, model: ModelFile) -> list[dict[str, Any]]:
    """Input tensors in the order of the model's specs; the file has an order of its own."""
    return _named(made, "inputs", made.get_input_details(), model.inputs)


def outputs(made: Any, model: ModelFile) -> list[dict[str, Any]]:
    """Output tensors in the order of the model's specs."""
    return _named(made, "outputs", made.get_output_details(), model.outputs)


def _named(
    made: Any, side: str, details: list[dict[str, Any]], specs: Sequence[TensorSpec]
) -> list[dict[str, Any]]:
    """The signature tells which tensor bears a spec's name; foreign files go by order."""
    signatures = made._get_full_signature_list()
    places = next(iter(signatures.values()))[side] if signatures else {}
    if not all(spec.name in places for spec in specs):
        return details
    by_index = {entry["index"]: entry for entry in details}
    return [by_index[places[spec.name]] for spec in specs]


def places(model: ModelFile) -> tuple[list[str], list[str]]:
    """Names of inputs and of outputs in the order in which the file holds them."""
    if model.format == "onnx":
        return [spec.name for spec in model.inputs], [spec.name for spec in model.outputs]
    made = interpreter(model.data, 1)
    found = []
    for details, specs, named in (
        (made.get_input_details(), model.inputs, inputs(made, model)),
        (made.get_output_details(), model.outputs, outputs(made, model)),
    ):
        by_index = {e["index"]: s.name for s, e in zip(specs, named, strict=True)}
        found.append([by_index[entry["index"]] for entry in details])
    return found[0], found[1]
