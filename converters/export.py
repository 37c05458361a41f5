"""From a trained torch module to float files: ONNX by dynamo, TFLite by litert-torch.

Bytes depend on the model alone: what the tools write about themselves and this machine is taken
off, because it leaks absolute paths and makes equal builds differ.
"""

import copy
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import tensors
from converters.floating import FloatModel
from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.tensors import Feeds, TensorSpec
from edge_core.errors import InvalidInput

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = 65536
EXAMPLE_BATCH = 8
SAME = 1e-3
"""Largest difference from torch, as a share of the reference's standard deviation, that the float
kernels of another runtime may show."""
_SCOPE = "pkg.torch.onnx.name_scopes"
_MODULE = re.compile(r"/torch\.nn\.modules\.[\w.]+?_([\w.]+)|/[\w.]+?\.[A-Z]\w*_([\w.]+)")


def to_onnx(model: FloatModel) -> ModelFile:
    """ONNX with a dynamic batch for every input.

    Raises:
        StageFailed: an operator is not supported, or a shape depends on data; both are named.
    """
    import onnx
    import torch

    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    examples = _examples(model, EXAMPLE_BATCH)
    try:
        program = torch.onnx.export(
            _ready(model),
            examples,
            dynamo=True,
            input_names=[spec.name for spec in model.inputs],
            output_names=[spec.name for spec in model.outputs],
            dynamic_shapes=tuple({0: batch} for _ in model.inputs),
            verbose=False,
        )
    except Exception as error:
        raise _refused("ONNX", error) from error
    assert program is not None
    proto = onnx.load_model_from_string(program.model_proto.SerializeToString())
    _check_dynamic(proto, model)
    origins = _onnx_origins(proto)
    return ModelFile(
        format="onnx",
        data=strip(proto),
        inputs=model.inputs,
        outputs=model.outputs,
        origins=origins,
    )


def to_tflite(model: FloatModel) -> ModelFile:
    """TFLite with a batch of 1, which runtimes can resize.

    The tool names inputs by their place: ``args_0`` and so on.

    Raises:
        StageFailed: an operator is not supported, or a shape depends on data; both are named.
    """
    import litert_torch

    try:
        converted = litert_torch.convert(_ready(model), _examples(model, 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            converted.export(str(path))
            data = path.read_bytes()
    except OSError:
        raise
    except Exception as error:
        raise _refused("TFLite", error) from error
    return ModelFile(
        format="tflite",
        data=data,
        inputs=model.inputs,
        outputs=model.outputs,
        origins=_tflite_origins(data),
    )


def strip(proto: Any) -> bytes:
    """Deterministic bytes of an ONNX model without producer, metadata and comments."""
    for holder in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        del holder.metadata_props[:]
        holder.doc_string = ""
    proto.producer_name = "serinus"
    proto.producer_version = ""
    del proto.functions[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def check_same(model: FloatModel, file: ModelFile, feeds: Feeds) -> None:
    """Refuse a float file that answers otherwise than torch does.

    Raises:
        StageFailed: an output differs by more than the kernels' rounding explains.
    """
    from converters import host

    if file.scaling is not None:
        return  # it takes scaled rows; the quantised file is compared with the whole model
    reference, answered = model.run(feeds), host.runner(file)(feeds)
    for name, expected in reference.items():
        spread = float(np.std(expected)) or 1.0
        worst = float(np.abs(answered[name] - expected).max(initial=0.0))
        if not worst <= SAME * max(spread, float(np.abs(expected).max(initial=0.0)) * 1e-2):
            raise StageFailed(
                f"the {file.format} file answers {name} otherwise than torch: off by {worst:.3g} "
                f"at a standard deviation of {spread:.3g}; an operator is converted wrongly"
            )


def _ready(model: FloatModel) -> "torch.nn.Module":
    """A copy of the module that the exporters may alter; refuses dtypes that they cannot take."""
    import torch

    for name, tensor in model.module.state_dict().items():
        if tensor.is_complex() or tensor.dtype in (torch.float16, torch.bfloat16, torch.float64):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InvalidInput(f"{name} is {kind}; convert the model first: model.float()")
    return copy.deepcopy(model.module).eval()


def _examples(model: FloatModel, rows: int) -> "tuple[torch.Tensor, ...]":
    import torch

    return tuple(
        torch.zeros(rows, *spec.shape, dtype=getattr(torch, spec.dtype)) for spec in model.inputs
    )


def _check_dynamic(proto: Any, model: FloatModel) -> None:
    """Only the batch may vary, and it has to."""
    for tensor, spec in zip(proto.graph.output, model.outputs, strict=True):
        shape = [axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
        if not shape or not isinstance(shape[0], str):
            raise StageFailed(
                f"output {spec.name} has a fixed first dimension {shape[:1]}: the model mixes rows "
                "of a batch; make it answer each row alone"
            )
        if tuple(shape[1:]) != spec.shape:
            raise StageFailed(
                f"output {spec.name} has shape {shape}; only the batch may vary, and the rest "
                f"has to be {list(spec.shape)}"
            )


def _onnx_origins(proto: Any) -> dict[str, str]:
    """Node name -> path of the module that it came from, where one is known."""
    found = {}
    for node in proto.graph.node:
        for entry in node.metadata_props:
            if entry.key == _SCOPE:
                scopes = re.findall(r"'([^']*)'", entry.value)[:-1]
                found[node.name] = next((scope for scope in reversed(scopes) if scope), "")
    return {name: path for name, path in found.items() if path}


def _tflite_origins(data: bytes) -> dict[str, str]:
    """Tensor name -> path of the module that it came from, where one is known."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    found = {}
    for tensor in interpreter.get_tensor_details():
        paths = [a or b for a, b in _MODULE.findall(tensor["name"])]
        if paths:
            found[tensor["name"]] = paths[-1]
    return found


def _refused(form: str, error: Exception) -> StageFailed:
    """One line that names operator and module, as far as the exporter tells them."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and len(chain) < 10:
        chain.append(cause)
    text = "\n".join(str(link) for link in chain)
    operator = _first(r"(aten[.:\w]+|torch\.ops\.[\w.]+|prims\.\w+)", text)
    module = _first(r"\(([\w.]+)\): [\w.]*modules|File \"[^\"]*\", line \d+, in forward", text)
    dynamic = re.search(r"(?i)data-?dependent|unbacked|guard on|Constraints violated|dynamic", text)
    told = " ".join(str(error).split())[:160]
    where = f" in {module}" if module else ""
    if operator:
        return StageFailed(f"{form}: operator {operator}{where} cannot be exported ({told})")
    if dynamic:
        return StageFailed(
            f"{form}: a shape{where} depends on data or on another dimension than the batch; make "
            f"it fixed ({told})"
        )
    return StageFailed(f"{form}: the model cannot be exported{where}: {told}")


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return next((group for group in found.groups() if group), None) if found else None
