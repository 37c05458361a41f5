"""Lets a TFLite file that was made for one row be resized to more.

Shapes and slice sizes are constants in the file, with the batch of one worked into them. "Whatever
is left" means the same for one row and, as rows stand first in memory, mostly holds for more. Where
it does not (a recurrent net whose turn of batch and time is nothing for one row) the answers tell.
"""

from typing import Any

import numpy as np

from converters.floating import FloatModel
from converters.tensors import Array, TensorSpec

REST = -1
"""In a RESHAPE's shape and a SLICE's size: as much as is left."""
ROWS = 3
SEED = 0


def free(data: bytes, model: FloatModel) -> bytes:
    """The file with its batch freed, or as it was where more rows would be answered wrongly.

    A freed file was run on several rows at once and on each alone, with the same answers.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    _free_constants(file)
    freed = bytes(flatbuffer_utils.convert_object_to_bytearray(file))
    return freed if takes_batches(freed, model) else data


def takes_batches(data: bytes, model: FloatModel) -> bool:
    """Whether LiteRT answers several rows at once as it answers each alone.

    ``data`` is a file of :func:`converters.export.to_tflite` or made from one, with float inputs
    and outputs: its tensors are found by the specs' names.
    """
    draw = np.random.default_rng(SEED)
    rows = {spec.name: _drawn(draw, spec) for spec in model.inputs}
    try:
        together = _run(data, rows)
        alone = [
            _run(data, {name: array[place : place + 1] for name, array in rows.items()})
            for place in range(ROWS)
        ]
    except (RuntimeError, ValueError):
        return False
    for name, array in together.items():
        expected = np.concatenate([one[name] for one in alone])
        if array.shape != expected.shape or not np.allclose(array, expected, 1e-4, 1e-5):
            return False
    return True


def _drawn(draw: np.random.Generator, spec: TensorSpec) -> Array:
    shape = (ROWS, *spec.shape)
    if spec.dtype == "float32":
        return draw.normal(size=shape).astype(np.float32)
    return draw.integers(0, 2, shape).astype(spec.dtype)


def _run(data: bytes, rows: dict[str, Array]) -> dict[str, Array]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    for entry in interpreter.get_input_details():
        interpreter.resize_tensor_input(entry["index"], rows[entry["name"]].shape)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], rows[entry["name"]])
    interpreter.invoke()
    return {
        entry["name"]: np.array(interpreter.get_tensor(entry["index"]))
        for entry in interpreter.get_output_details()
    }


def _free_constants(file: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = file.subgraphs[0]
    readers: dict[int, list[bool]] = {}  # buffer -> for each reader, whether it may be changed
    for step in graph.operators:
        code = file.operatorCodes[step.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        reshape = kind == schema.BuiltinOperator.RESHAPE
        place = 1 if reshape else 2 if kind == schema.BuiltinOperator.SLICE else None
        for order, tensor in enumerate(step.inputs):
            buffer = graph.tensors[tensor].buffer if tensor >= 0 else 0
            fits = order == place and _whole_first(file, step, reshape)
            readers.setdefault(buffer, []).append(fits)
        if reshape and len(step.inputs) > 1:
            # Options repeat the constant, and some readers believe the options.
            step.builtinOptions, step.builtinOptionsType = None, 0
    for number, fits_all in sorted(readers.items()):
        if number and all(fits_all) and file.buffers[number].data is not None:
            sizes = _numbers(file.buffers[number])
            sizes[0] = REST
            file.buffers[number].data = np.frombuffer(sizes.tobytes(), np.uint8)


def _whole_first(file: Any, step: Any, reshape: bool) -> bool:
    """Whether the operator takes all of the first dimension, so that "the rest" says the same."""
    graph = file.subgraphs[0]
    shape = list(graph.tensors[step.inputs[0]].shape)
    constant = file.buffers[graph.tensors[step.inputs[-1]].buffer]
    if not shape or constant.data is None:
        return False
    sizes = _numbers(constant)
    if reshape:
        return len(sizes) > 0 and REST not in sizes
    begins = file.buffers[graph.tensors[step.inputs[1]].buffer]
    return begins.data is not None and _numbers(begins)[0] == 0 and sizes[0] == shape[0]


def _numbers(buffer: Any) -> Any:
    return np.frombuffer(bytes(buffer.data), np.int32).copy()
