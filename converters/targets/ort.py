"""Processors through onnxruntime."""

import platform
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.model_file import ModelFile, Runner
from converters.refusal import StageFailed
from converters.targets import emulation, int8_io
from converters.targets.cpu import Processor
from converters.targets.floating_left import allowed, called
from converters.targets.target import Compiled, Placement
from converters.tensors import Array, Feeds, rows_of
from edge_core.errors import quoted

PROVIDER = "CPUExecutionProvider"
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Layers for which onnxruntime has no static int8 kernel."""
PRODUCTS = RECURRENT | {
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
}
"""Products in float, as they are called before and after onnxruntime optimised them; int8 ones
become QLinearConv, QGemm, MatMulIntegerToFloat and the like."""
BLOCKED = "_nchwc"
"""What onnxruntime appends to a convolution's name when it lays float tensors out in blocks."""
MOVES = frozenset({"ReorderInput", "ReorderOutput", "Transpose", "Reshape"})
ERRORS_ONLY = 3
LARGEST_BATCH = 256


class Adapter(Processor):
    """See :class:`converters.targets.target.Target`."""

    package = "onnxruntime"

    def placement(self, compiled: Compiled) -> Placement:
        """From the graph that onnxruntime optimised, on the target's processor where it runs.

        Elsewhere this machine's onnxruntime optimises it, and the places say so: which products
        fuse depends little on the processor, and memory layouts do.

        Raises:
            StageFailed: onnxruntime refuses the file.
        """
        if self.emulated and self.tool().runs:
            graph, where = self._optimised_there(compiled.data), PROVIDER
        else:
            native = platform.machine() == self.profile.machine
            where = PROVIDER if native else f"{PROVIDER} as optimised on {platform.machine()}"
            graph = optimised(compiled.data)
        return placed(graph, compiled.source, where)

    def runner(self, compiled: Compiled) -> Runner:
        """See :class:`converters.targets.cpu.Processor`."""
        return runner(compiled.source)

    def _optimised_there(self, data: bytes) -> bytes:
        return emulation.optimised(data, self.emulated_cpu)


def runner(source: ModelFile) -> Runner:
    """Load once, run often: unscaled rows in, float32 rows out, one thread.

    Raises:
        StageFailed: onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = _session(source.data, options)
    names = [entry.name for entry in session.get_inputs()]
    ends = int8_io.Ends(source)

    def answer(feeds: Feeds) -> dict[str, Array]:
        given = ends.given(feeds)
        parts = []
        for start in range(0, rows_of(feeds), LARGEST_BATCH):
            batch = [array[start : start + LARGEST_BATCH] for array in given]
            parts.append(session.run(None, dict(zip(names, batch, strict=True))))
        return ends.answered([np.concatenate(found) for found in zip(*parts, strict=True)])

    return answer


def optimised(data: bytes) -> bytes:
    """The graph that onnxruntime really runs on this machine, as ONNX.

    Raises:
        StageFailed: onnxruntime refuses the file.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.optimized_model_filepath = str(path)
        _session(data, options)
        return path.read_bytes()


def _session(data: bytes, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(data, options, providers=[PROVIDER])
    except Exception as error:  # its error classes have no public base
        raise StageFailed(f"onnxruntime refuses the model: {quoted(error)}") from error


def placed(graph: bytes, source: ModelFile, where: str = PROVIDER) -> Placement:
    """Count the operators of an optimised graph and name the products left in float."""
    import onnx

    nodes = list(onnx.load_model_from_string(graph).graph.node)
    layers = _Layers(onnx.load_model_from_string(source.data))
    kinds = Counter(f"{where}/{node.op_type}" for node in nodes)
    makers = {output: node for node in nodes for output in node.output}
    misplaced = []
    for node in nodes:
        layer = layers.of(node)
        if node.op_type not in PRODUCTS or allowed(source, layer):
            continue
        misplaced.append(f"{node.op_type} {called(source, layer)} ({_why(node, makers)})")
    return Placement(operators=dict(sorted(kinds.items())), misplaced=tuple(misplaced))


class _Layers:
    """Finds the product of the file that an optimised node was made of, by what it computes."""

    def __init__(self, model: Any) -> None:
        self._makers = {output: node for node in model.graph.node for output in node.output}

    def of(self, node: Any) -> str:
        """Its name in the file; the optimised node's own where nothing fits."""
        tensor = node.output[0]
        if node.name.endswith(BLOCKED):
            tensor = node.name.removesuffix(BLOCKED)
        found = self._makers.get(tensor)
        while found is not None and found.op_type not in PRODUCTS:
            # A fused activation gave the node its name: the product stands before it.
            found = next((self._makers[n] for n in found.input if n in self._makers), None)
        return str(node.name if found is None else found.name)


def _why(node: Any, makers: Mapping[str, Any]) -> str:
    if node.op_type in RECURRENT:
        return "float32: onnxruntime has no int8 kernel; allow mixed, or use LiteRT"
    unfused = any(_dequantised(name, makers) for name in node.input)
    return "DequantizeLinear not fused" if unfused else "float32"


def _dequantised(name: str, makers: Mapping[str, Any]) -> bool:
    """Whether the tensor comes out of a DequantizeLinear, moves of memory aside."""
    node = makers.get(name)
    while node is not None and node.op_type in MOVES:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
