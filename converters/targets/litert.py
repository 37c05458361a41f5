"""Processors through LiteRT."""

import importlib.metadata
from collections import Counter
from typing import Any

import numpy as np

from converters.model_file import ModelFile, Runner
from converters.refusal import StageFailed
from converters.targets import int8_io, tflite_graph
from converters.targets.cpu import Processor
from converters.targets.floating_left import allowed, called
from converters.targets.target import Compiled, Placement
from converters.tensors import Array, Feeds, rows_of
from edge_core.errors import quoted

PACKAGE = "ai-edge-litert"
LARGEST_BATCH = 256


class Adapter(Processor):
    """See :class:`converters.targets.target.Target`."""

    package = PACKAGE

    def placement(self, compiled: Compiled) -> Placement:
        """From the operators of the file: LiteRT fuses none anew, every one runs on the CPU."""
        return placed(compiled.source, compiled.data)

    def runner(self, compiled: Compiled) -> Runner:
        """See :class:`converters.targets.cpu.Processor`."""
        return runner(compiled.source)


def placed(source: ModelFile, data: bytes, place: str = "CPU") -> Placement:
    """Count the file's operators by precision and kind, and name products left in float."""
    found = tflite_graph.operators(data)
    kinds = Counter(f"{place} {entry.precision}/{entry.kind}" for entry in found)
    misplaced = tuple(
        f"{entry.kind} {called(source, entry.output)} "
        f"({'DEQUANTIZE not fused' if entry.dequantised else 'float32'})"
        for entry in found
        if entry.kind in tflite_graph.PRODUCTS
        and entry.precision.startswith("float")
        and not allowed(source, entry.output)
    )
    return Placement(operators=dict(sorted(kinds.items())), misplaced=misplaced)


def version() -> str:
    """Such as ``LiteRT 2.3.0``."""
    return f"LiteRT {importlib.metadata.version(PACKAGE)}"


def runner(source: ModelFile, *, reference: bool = False) -> Runner:
    """Load once, run often: unscaled rows in, float32 rows out, one thread.

    Files whose shapes hold their batch of one answer row by row.

    Args:
        source: a TFLite file, float or int8 at its ends.
        reference: run the plain kernels that define the arithmetic instead of the fast ones,
            which may differ by one int8 step.

    Raises:
        InvalidInput: the file is damaged.
        StageFailed: LiteRT refuses the file.
    """
    session = _Session(source, reference)
    ends = int8_io.Ends(source)

    def answer(feeds: Feeds) -> dict[str, Array]:
        given = ends.given(feeds)
        rows = rows_of(feeds)
        parts = [
            session.run([array[start : start + LARGEST_BATCH] for array in given])
            for start in range(0, rows, LARGEST_BATCH)
        ]
        return ends.answered([np.concatenate(found) for found in zip(*parts, strict=True)])

    return answer


class _Session:
    """One interpreter for each batch size: laying out memory anew costs more than a second one."""

    def __init__(self, source: ModelFile, reference: bool) -> None:
        self._data = source.data
        self._reference = reference
        self._planned: dict[int, Any] = {}
        self._batches = True

    def run(self, given: list[Array]) -> list[Array]:
        """Arrays [rows, ...] in the file's order -> the same of its outputs."""
        rows = len(given[0])
        if self._batches:
            try:
                planned = self._of(rows)
            except RuntimeError:
                self._batches = False
            else:
                return invoke(planned, given)
        try:
            one = self._of(1)
        except RuntimeError as error:
            raise StageFailed(f"LiteRT cannot lay out the model: {quoted(error)}") from error
        parts = [invoke(one, [array[row : row + 1] for array in given]) for row in range(rows)]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    def _of(self, rows: int) -> Any:
        if rows not in self._planned:
            self._planned[rows] = interpreter(self._data, rows, reference=self._reference)
        return self._planned[rows]


def interpreter(data: bytes, rows: int, *, reference: bool = False, keep: bool = False) -> Any:
    """An interpreter laid out for so many rows.

    Args:
        data: the file.
        rows: of every input.
        reference: see :func:`runner`.
        keep: keep every tensor readable after a run; delegates would not.

    Raises:
        StageFailed: LiteRT refuses the file.
        RuntimeError: the file cannot be resized.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    if keep:
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        made = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=keep,
        )
    except ValueError as error:
        raise StageFailed(f"LiteRT refuses the model: {quoted(error)}") from error
    for details in made.get_input_details():
        if rows != details["shape"][0]:
            made.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
    made.allocate_tensors()
    return made


def invoke(planned: Any, given: list[Array]) -> list[Array]:
    """Feed, run and read an interpreter; arrays in the file's order."""
    for details, array in zip(planned.get_input_details(), given, strict=True):
        planned.set_tensor(details["index"], array)
    planned.invoke()
    return [np.array(planned.get_tensor(d["index"])) for d in planned.get_output_details()]
