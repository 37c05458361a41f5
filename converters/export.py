"""From a trained torch module to float files: ONNX by dynamo, TFLite by litert-torch.

Tools print and warn a lot: call these inside :func:`converters.quiet.silenced`.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from converters import blame, rewriting, tflite_batch, tflite_naming
from converters.capturing import (
    ROOT,
    capture,
    capture_program,
    example_rows,
    export_program,
    module_path,
)
from converters.floating import FloatModel
from converters.model_file import ModelFile
from converters.refusal import StageFailed

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule


_SCOPES = "pkg.torch.onnx.name_scopes"
MAX_FILE_BYTES = 2**31 - 2**20
"""Neither protobuf nor flatbuffers hold more than 2 GiB."""


def to_onnx(model: FloatModel) -> ModelFile:
    """ONNX with a dynamic batch for every input, names from the specs, deterministic bytes.

    Nodes are named after the torch module and operator that they came from; ``origins`` maps each
    node to its module path.

    Raises:
        InvalidInput: a type that is not taken; see :func:`converters.capturing.check_types`.
        StageFailed: the model cannot be captured, or the exporter lacks an operator; the line
            names operator and module.
    """
    import onnx
    import torch

    program = capture_program(model)
    _check_size(program.state_dict)
    if rewriting.has_batch_norms(program.graph):
        graph = program.module(check_guards=False)
        rewriting.fold_batch_norms(graph)
        program = export_program(graph, model)
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[spec.name for spec in model.inputs],
            output_names=[spec.name for spec in model.outputs],
            verbose=False,
        )
    except Exception as error:
        raise StageFailed(blame.unsupported(error, program, "ONNX")) from error
    assert made is not None
    proto = onnx.load_model_from_string(made.model_proto.SerializeToString())
    origins = _name_nodes(proto)
    left = [node.name for node in proto.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise StageFailed(f"batch norm of module {origins[left[0]]} could not be folded")
    _name_batch(proto)
    return ModelFile(
        format="onnx",
        data=strip(proto),
        inputs=model.inputs,
        outputs=model.outputs,
        origins=origins,
    )


def to_tflite(model: FloatModel) -> ModelFile:
    """TFLite with a batch of 1, names from the specs, deterministic bytes.

    The runtime can resize the batch where :func:`converters.tflite_batch.takes_batches`. Batch
    norms are folded and 1-D convolutions run as 2-D ones. Tensors are named after the torch
    module and operator that they came from; ``origins`` maps each operator's first output to its
    module path.

    Raises:
        InvalidInput: a type that is not taken; see :func:`converters.capturing.check_types`.
        StageFailed: the model cannot be captured, or the converter or runtime lacks an
            operator; the line names operator and module.
    """
    import litert_torch

    graph = capture(model)
    _check_size(graph.state_dict())
    rewriting.fold_batch_norms(graph)
    rewriting.widen_conv1d(graph)
    wide = any(spec.dtype == "int64" for spec in (*model.inputs, *model.outputs))
    rows = example_rows(model, 1)

    def convert(part: "GraphModule", given: "tuple[torch.Tensor, ...]") -> bytes:
        return bytes(litert_torch.convert(part, given, enable_x64=wide).model_content())

    try:
        data = convert(graph, rows)
    except Exception as error:
        raise StageFailed(blame.unsupported_part(error, graph, rows, convert, "TFLite")) from error
    named, origins = tflite_naming.rename(data, model, _locations(graph), _ends(graph))
    return ModelFile(
        format="tflite",
        data=tflite_batch.free(named, model),
        inputs=model.inputs,
        outputs=model.outputs,
        origins=origins,
    )


def _check_size(weights: "Mapping[str, torch.Tensor]") -> None:
    held = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    if held > MAX_FILE_BYTES:
        raise StageFailed(
            f"the weights take {held} bytes; a model file holds at most {MAX_FILE_BYTES}"
        )


def _name_nodes(proto: Any) -> dict[str, str]:
    """Name each node after the torch module that it came from; give name -> module path."""
    origins: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for node in proto.graph.node:
        path = _scope(node)
        plain = f"{path}/{node.op_type}"
        seen[plain] += 1
        node.name = plain if seen[plain] == 1 else f"{plain}#{seen[plain]}"
        origins[node.name] = path
    return origins


def _scope(node: Any) -> str:
    """The torch module path in what the exporter noted about an ONNX node."""
    noted = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(noted.get(_SCOPES, "[]"))
    path = scopes[-2] if len(scopes) > 1 else ""
    return path if path and not path.startswith("_empty") else ROOT


def _name_batch(proto: Any) -> None:
    """Call the varying dimension ``batch``; torch numbers it by an internal counter."""
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    whole = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = whole.sub("batch", dim.dim_param)


def _locations(graph: "GraphModule") -> Mapping[str, str]:
    """What litert-torch writes into tensor names -> torch module path."""
    from litert_torch.backend.debuginfo import build_mlir_debuginfo

    found = {}
    for node in graph.graph.nodes:
        location = build_mlir_debuginfo(node)
        if location:
            found[location.rstrip(";")] = module_path(node)
    return found


def _ends(graph: "GraphModule") -> tuple[str, ...]:
    """Module path of what makes each output."""
    answered: Any = graph.graph.output_node().args[0]
    nodes = answered if isinstance(answered, tuple | list) else (answered,)
    return tuple(module_path(node) for node in nodes)


def strip(model: "object") -> bytes:
    """Deterministic bytes of an ONNX model without producer, metadata and comments."""
    from onnx import ModelProto

    assert isinstance(model, ModelProto)
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del holder.metadata_props[:]
        holder.doc_string = ""
    model.producer_name = "serinus"
    model.producer_version = ""
    del model.functions[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data
