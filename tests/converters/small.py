"""Small float files for tests of quantisation, exported once for all tests of a process."""

import functools

import msgspec
import numpy as np
import torch
from torch import nn

from converters import export
from converters.floating import FloatModel
from converters.layers import Scaled, Standardise
from converters.model_file import Format, ModelFile
from converters.quiet import silenced
from converters.tensors import TensorSpec
from edge_core.bundle.manifest import InputScaling
from tests.converters.corpus import CORPUS

ROWS = 96


def export_file(model: FloatModel, form: Format) -> ModelFile:
    with silenced():
        return export.to_onnx(model) if form == "onnx" else export.to_tflite(model)


@functools.cache
def from_corpus(name: str, form: Format) -> ModelFile:
    return export_file(CORPUS[name]().model, form)


def rows(file: ModelFile, count: int = ROWS, seed: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        spec.name: draw.normal(size=(count, *spec.shape)).astype(np.float32)
        if spec.dtype == "float32"
        else draw.integers(0, 50, (count, *spec.shape)).astype(spec.dtype)
        for spec in file.inputs
    }


def dense(*parts: nn.Module, features: int = 8, classes: int = 4) -> FloatModel:
    """A network of these parts; [batch, features] -> logits [batch, classes]."""
    return FloatModel(
        module=nn.Sequential(*parts).eval(),
        inputs=(TensorSpec(name="features", shape=(features,)),),
        outputs=(TensorSpec(name="logits", shape=(classes,)),),
    )


def plain(width: int = 32, depth: int = 2) -> FloatModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts: list[nn.Module] = [nn.Linear(8, width), nn.ReLU()]
        for _ in range(depth - 1):
            parts += [nn.Linear(width, width), nn.ReLU()]
        return dense(*parts, nn.Linear(width, 4))


@functools.cache
def plain_file(form: Format, width: int = 32, depth: int = 2) -> ModelFile:
    return export_file(plain(width, depth), form)


def with_bad_layer() -> FloatModel:
    """A network whose second of four layers int8 ruins: huge weights, read by nothing but zeros.

    They set the scale of every channel, so that the weights that count become nothing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(2)
        first, bad, third = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        last = nn.Linear(16, 4)
    with torch.no_grad():
        first.bias[0] = -100.0
        bad.weight[:, 0] = 1000.0
    return dense(first, nn.ReLU(), bad, nn.ReLU(), third, nn.ReLU(), last)


BAD = "2"
"""Module path of the bad layer."""


def with_scaling(body: FloatModel) -> FloatModel:
    """The network behind a scaling of raw features whose ranges differ a thousandfold."""
    scaling = Standardise((8,), limit=4.0)
    scaling.fit(torch.from_numpy(raw_rows()["features"]))
    module = Scaled(scaling, body.module).eval()
    return FloatModel(module=module, inputs=body.inputs, outputs=body.outputs)


def raw_rows(count: int = ROWS) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(4)
    sizes = np.float32(10.0) ** np.arange(-3, 5)
    return {"features": (draw.normal(size=(count, 8)) * sizes).astype(np.float32)}


def cut(model: FloatModel, form: Format) -> ModelFile:
    """The float file without its scaling, which stands beside it."""
    scaling = model.scaling
    assert scaling is not None
    return msgspec.structs.replace(
        export_file(model.without_scaling(), form),
        scaling=InputScaling(
            shape=list(scaling.mean.shape),
            mean=scaling.mean.flatten().tolist(),
            gain=scaling.gain.flatten().tolist(),
            limit=scaling.limit,
        ),
    )
