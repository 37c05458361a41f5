"""From a trained torch module to float files: ONNX by dynamo, TFLite by litert-torch."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

INPUT = "features"
OUTPUT = "logits"

Float32 = npt.NDArray[np.float32]


def onnx_float(module: "torch.nn.Module", features: int) -> bytes:
    """ONNX with a dynamic batch, stripped of what the tools wrote about this machine.

    Tool metadata holds absolute paths, which leak and make equal builds differ.
    """
    import onnx
    import torch

    batch = torch.export.Dim("batch", min=1, max=65536)
    program = torch.onnx.export(
        module,
        (torch.zeros(8, features),),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: batch}},
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    return strip(onnx.load_model_from_string(model.SerializeToString()))


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


def tflite_float(module: "torch.nn.Module", features: int) -> bytes:
    """TFLite with a batch of 1; the runtime resizes it."""
    import litert_torch
    import torch

    model = litert_torch.convert(module, (), sample_kwargs={INPUT: torch.zeros(1, features)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        model.export(str(path))
        return path.read_bytes()


def reference_logits(module: "torch.nn.Module", features: Float32) -> Float32:
    """Run the fp32 module, float32 [rows, features] -> float32 [rows, classes]."""
    import torch

    with torch.no_grad():
        logits: Float32 = module(torch.from_numpy(features)).numpy()
    return logits
