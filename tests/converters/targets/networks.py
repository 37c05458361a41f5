"""Small networks as the files that targets take, made by the real exporters and quantisers."""

import functools
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.model_file import ModelFile
from converters.quiet import silenced
from converters.tensors import Array, TensorSpec

Name = Literal["mlp", "cnn", "convolutions", "two ends", "sines"]
INPUTS = {
    "mlp": (TensorSpec(name="features", shape=(12,)),),
    "cnn": (TensorSpec(name="image", shape=(1, 8, 8)),),
    "convolutions": (TensorSpec(name="image", shape=(1, 8, 8)),),
    "sines": (TensorSpec(name="features", shape=(12,)),),
    "two ends": (TensorSpec(name="wide", shape=(6,)), TensorSpec(name="narrow", shape=(3,))),
}
OUTPUTS = {
    "mlp": (TensorSpec(name="logits", shape=(4,)),),
    "cnn": (TensorSpec(name="logits", shape=(5,)),),
    "convolutions": (TensorSpec(name="map", shape=(256,)),),
    "sines": (TensorSpec(name="logits", shape=(4,)),),
    "two ends": (TensorSpec(name="sums", shape=(2,)), TensorSpec(name="shares", shape=(7,))),
}
PRODUCTS = ["Conv", "Gemm", "MatMul"]
QUANTISED = [
    *("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"),
    *("RESHAPE", "TRANSPOSE", "ADD", "RELU"),
]


def rows(name: Name, count: int, seed: int) -> dict[str, Array]:
    """Normal rows for a network."""
    generator = np.random.default_rng(seed)
    return {
        spec.name: generator.normal(size=(count, *spec.shape)).astype(np.float32)
        for spec in INPUTS[name]
    }


@functools.cache
def onnx_float(name: Name) -> ModelFile:
    """Float ONNX with a dynamic batch."""
    import onnx
    import torch

    batch = torch.export.Dim("batch", min=1, max=1024)
    with silenced():
        program = torch.onnx.export(
            _module(name),
            tuple(torch.zeros(8, *spec.shape) for spec in INPUTS[name]),
            dynamo=True,
            input_names=[spec.name for spec in INPUTS[name]],
            output_names=[spec.name for spec in OUTPUTS[name]],
            dynamic_shapes=tuple({0: batch} for _ in INPUTS[name]),
            verbose=False,
        )
    assert program is not None
    proto = onnx.load_model_from_string(program.model_proto.SerializeToString())
    return _file(name, "onnx", proto.SerializeToString(deterministic=True), "float32")


@functools.cache
def onnx_int8(name: Name, leave: tuple[str, ...] = ()) -> ModelFile:
    """Static int8 QDQ of all products but those nodes that are left."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped package
        def __init__(self) -> None:
            self._rows = iter([rows(name, 64, seed=0)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._rows, None)

    with tempfile.TemporaryDirectory() as folder, silenced():
        source, prepared, made = (Path(folder) / part for part in ("f", "p", "q"))
        source.write_bytes(onnx_float(name).data)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(made),
            Rows(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            nodes_to_exclude=list(leave),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return _file(name, "onnx", made.read_bytes(), "int8 static")


@functools.cache
def tflite_float(name: Name) -> ModelFile:
    """Float TFLite with a batch of one; inputs are named by their place."""
    import litert_torch
    import torch

    examples = tuple(torch.zeros(1, *spec.shape) for spec in INPUTS[name])
    with tempfile.TemporaryDirectory() as folder, silenced():
        path = Path(folder) / "model.tflite"
        litert_torch.convert(_module(name), examples).export(str(path))
        return _file(name, "tflite", path.read_bytes(), "float32")


@functools.cache
def tflite_int8(name: Name, io: Literal["float32", "int8"], leave: str = "") -> ModelFile:
    """Static int8 TFLite; ``leave`` is a kind of operator that stays in float."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    with silenced():
        data = tflite_float(name).data
        made = quantizer.Quantizer(data)
        for kind in [*QUANTISED, *(["INPUT", "OUTPUT"] if io == "int8" else [])]:
            if kind != leave:
                operation = getattr(qtyping.TFLOperationName, kind)
                made.add_static_config(".*", operation, 8, 8)
        measured = calibrator.Calibrator(
            data, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        given = rows(name, 64, seed=0)
        fed = [
            {f"args_{place}": array[row, None] for place, array in enumerate(given.values())}
            for row in range(64)
        ]
        measured.calibrate({"serving_default": fed}, made._recipe_manager)
        quantised = bytes(made.quantize(measured.get_model_qsvs()).quantized_model)
    return _file(name, "tflite", quantised, "int8 static")


def cpu_files(name: Name) -> dict[str, ModelFile]:
    """What the processor targets take, by the end of their names."""
    return {"ort": onnx_int8(name), "tflite": tflite_int8(name, "float32")}


def reference(name: Name, feeds: dict[str, Array]) -> dict[str, Array]:
    """Answers of the torch module."""
    import torch

    with torch.no_grad():
        found = _module(name)(*(torch.from_numpy(array) for array in feeds.values()))
    found = found if isinstance(found, tuple) else (found,)
    return {spec.name: part.numpy() for spec, part in zip(OUTPUTS[name], found, strict=True)}


def _file(name: Name, form: Any, data: bytes, scheme: Any) -> ModelFile:
    return ModelFile(
        format=form, data=data, inputs=INPUTS[name], outputs=OUTPUTS[name], scheme=scheme
    )


@functools.cache
def _module(name: Name) -> Any:
    import torch
    from torch import nn

    class TwoEnds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sums = nn.Linear(6, 2)
            self.shares = nn.Linear(3, 7)
            self.mixed = nn.Linear(2, 7)

        def forward(self, wide: Any, narrow: Any) -> Any:
            sums = self.sums(wide)
            return sums, self.shares(narrow) + self.mixed(sums)

    class Sines(nn.Module):
        """With an operator that int8 kernels lack."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(12, 16), nn.Linear(16, 4)

        def forward(self, features: Any) -> Any:
            return self.two(torch.sin(self.one(features)))

    torch.manual_seed(1)
    if name == "sines":
        return Sines().eval()
    if name == "mlp":
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    if name == "two ends":
        return TwoEnds().eval()
    layers = [
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU()),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, *([nn.Linear(256, 5)] if name == "cnn" else [])).eval()


def with_operator(model: ModelFile, kind: str, other: str) -> ModelFile:
    """A file that calls its operators of one kind by the name of another."""
    import flatbuffers
    import msgspec
    from ai_edge_litert import schema_py_generated as schema

    proto = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.data, 0))
    for code in proto.operatorCodes:
        if code.builtinCode == getattr(schema.BuiltinOperator, kind):
            code.builtinCode = getattr(schema.BuiltinOperator, other)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    builder = flatbuffers.Builder(len(model.data))
    builder.Finish(proto.Pack(builder), b"TFL3")
    return msgspec.structs.replace(model, data=bytes(builder.Output()))


@functools.cache
def float16(name: Name, form: Literal["onnx", "tflite"]) -> ModelFile:
    """Half precision."""
    import msgspec

    from converters.float16 import to_float16

    floats = onnx_float(name) if form == "onnx" else tflite_float(name)
    with silenced():
        return msgspec.structs.replace(floats, data=to_float16(floats), scheme="fp16")


def error(found: dict[str, Array], expected: dict[str, Array]) -> float:
    """Largest rms error of an output, over the deviation of what is expected."""
    assert found.keys() == expected.keys()
    return max(
        float(np.sqrt(np.mean((found[key] - part) ** 2)) / part.std())
        for key, part in expected.items()
    )
