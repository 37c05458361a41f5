"""Runs model files on this machine: ONNX with onnxruntime, TFLite with LiteRT, one thread each.

Callers feed unscaled float rows and read float answers, whatever the file takes inside.
"""

from typing import Any

import numpy as np

from converters import onnx_graph, tflite_graph
from converters.model_file import ModelFile, Runner
from converters.refusal import StageFailed
from converters.tensors import Array, Feeds, rows_of, take
from edge_core.bundle.manifest import InputScaling
from edge_core.errors import InvalidInput, quoted

BATCH = 256
"""Rows that one call of a runtime takes at most."""
PROBED = 3
"""Rows on which a resized TFLite file must answer as it does row by row."""


def runner(model: ModelFile) -> Runner:
    """Open a file; what is given back answers rows by input name with rows by output name.

    Rows [rows, ...] are scaled where the file's scaling was cut off, quantised where it takes
    int8, and answers are turned back to float32 where it answers int8.

    Raises:
        StageFailed: the runtime refuses the file.
    """
    try:
        opened: _Onnx | _Tflite = (_Onnx if model.format == "onnx" else _Tflite)(model)
    except Exception as error:
        raise StageFailed(f"the {model.format} file does not load: {quoted(error)}") from error

    def answer(feeds: Feeds) -> dict[str, Array]:
        if missing := {spec.name for spec in model.inputs} - feeds.keys():
            raise InvalidInput(f"rows lack {', '.join(sorted(missing))}")
        rows = scaled({spec.name: feeds[spec.name] for spec in model.inputs}, model.scaling)
        count, most = rows_of(rows), opened.batch
        parts = [
            opened.run(take(rows, range(start, min(start + most, count))))
            for start in range(0, count, most)
        ]
        return {
            spec.name: np.concatenate([part[spec.name] for part in parts])
            if parts
            else np.zeros((0, *spec.shape), spec.dtype)
            for spec in model.outputs
        }

    return answer


def scaled(rows: Feeds, scaling: InputScaling | None) -> dict[str, Array]:
    """Rows as a file without its scaling takes them; unchanged where there is none.

    Raises:
        InvalidInput: the model has more than one input.
    """
    if scaling is None:
        return dict(rows)
    if len(rows) != 1:
        raise InvalidInput("only a model with one input can have its scaling cut off")
    mean = np.asarray(scaling.mean, np.float32).reshape(scaling.shape)
    gain = np.asarray(scaling.gain, np.float32).reshape(scaling.shape)
    limit = np.float32(scaling.limit)
    return {
        name: np.clip((array - mean) * gain, -limit, limit).astype(np.float32)
        for name, array in rows.items()
    }


class _Onnx:
    """A file in onnxruntime."""

    def __init__(self, model: ModelFile) -> None:
        self._session = onnx_graph.open_session(model.data)
        self._outputs = [spec.name for spec in model.outputs]
        fixed = self._session.get_inputs()[0].shape[0]
        self.batch = fixed if isinstance(fixed, int) else BATCH

    def run(self, rows: Feeds) -> dict[str, Array]:
        """Answer at most ``batch`` rows."""
        answered = self._session.run(self._outputs, dict(rows))
        return dict(zip(self._outputs, answered, strict=True))


class _Tflite:
    """A file in LiteRT; several rows at once where the file allows that, else row by row."""

    def __init__(self, model: ModelFile) -> None:
        self._data = model.data
        self._interpreters: dict[int, Any] = {}
        self._inputs, self._outputs = tflite_graph.signature(model.data)
        self._opened(1)
        self.batch = BATCH
        self._resizable: bool | None = None

    def run(self, rows: Feeds) -> dict[str, Array]:
        """Answer at most ``batch`` rows."""
        count = rows_of(rows)
        if count > 1 and self._resizable is None:
            self._resizable = self._answers_alike(take(rows, range(min(count, PROBED))))
        if count > 1 and not self._resizable:
            parts = [self._invoke(take(rows, [row])) for row in range(count)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._invoke(rows)

    def _answers_alike(self, rows: Feeds) -> bool:
        """Whether several rows at once are answered as each alone; shapes inside may be fixed."""
        alone = [self._invoke(take(rows, [row])) for row in range(rows_of(rows))]
        try:
            together = self._invoke(rows)
        except (RuntimeError, ValueError):
            return False
        for name, array in together.items():
            expected = np.concatenate([one[name] for one in alone])
            near = 1e-3 * float(np.abs(expected).max(initial=0.0))
            if array.shape != expected.shape or not np.allclose(array, expected, 0, near):
                return False
        return True

    def _invoke(self, rows: Feeds) -> dict[str, Array]:
        interpreter = self._opened(rows_of(rows))
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        for name, place in self._inputs.items():
            interpreter.set_tensor(place, _to_int8(rows[name], details[place]))
        interpreter.invoke()
        return {
            name: _from_int8(interpreter.get_tensor(place), details[place])
            for name, place in self._outputs.items()
        }

    def _opened(self, rows: int) -> Any:
        if rows not in self._interpreters:
            interpreter = tflite_graph.open_interpreter(self._data)
            if rows > 1:
                for detail in interpreter.get_input_details():
                    interpreter.resize_tensor_input(detail["index"], [rows, *detail["shape"][1:]])
            interpreter.allocate_tensors()
            self._interpreters[rows] = interpreter
        return self._interpreters[rows]


def _to_int8(rows: Array, detail: Any) -> Array:
    if detail["dtype"] != np.int8:
        return rows
    scale, zero = detail["quantization"]
    steps = np.round(rows / np.float32(scale)) + zero
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def _from_int8(answered: Array, detail: Any) -> Array:
    if detail["dtype"] != np.int8:
        return np.array(answered)
    scale, zero = detail["quantization"]
    return np.asarray((answered.astype(np.float32) - zero) * np.float32(scale), np.float32)
