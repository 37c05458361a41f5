"""Opens what a model builder hands over: a trained model, and rows to calibrate and try it with."""

import inspect
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import factories, pt2, weights
from converters.capturing import WIDTHS, check_types
from converters.floating import FloatModel
from converters.tensors import Array, Feeds, TensorSpec, check, take
from edge_core.errors import InvalidConfiguration, InvalidInput, quoted

if TYPE_CHECKING:
    import torch

MAX_MODEL_BYTES = 2 * 1024**3
MAX_CALIBRATION_BYTES = 2 * 1024**3
MAX_ARRAYS = 64
TRIED_ROWS = 2
UNNAMED = "input"
"""Name of the rows in a ``.npy``, which has none; a model with one input takes any name."""


def load(path: Path, *, factory: str | None, example: Feeds) -> FloatModel:
    """Open a trained model.

    Args:
        path: a ``.pt2`` of ``torch.export.save``, or weights: ``.safetensors``, or a ``.pt`` or
            ``.pth`` that holds a state dict and no code.
        factory: ``file.py:function`` or ``package.module:function`` that makes the module which
            weights belong to; none for a ``.pt2``.
        example: at least one row for each input. A model with one input takes its name; others
            are told by the names that ``forward`` gives them.

    Raises:
        InvalidConfiguration: the file's kind is unknown, or it and the factory do not go together.
        InvalidInput: the file is missing, too large, corrupted, needs code to be unpickled, or
            does not fit the module; the module fails on the example; a type is not taken.
    """
    _check_file(path, MAX_MODEL_BYTES)
    if path.suffix == ".pt2":
        if factory is not None:
            raise InvalidConfiguration(f"{path.name} holds code and weights: leave the factory out")
        module, taken = pt2.load(path)
    elif path.suffix in weights.SUFFIXES:
        if factory is None:
            raise InvalidConfiguration(
                f"{path.name} holds weights only: name the function that makes the module, "
                "as file.py:function, or hand over a .pt2 of torch.export.save"
            )
        module = factories.make(factory)
        weights.fill(module, path)
        module.eval()
        taken = tuple(inspect.signature(module.forward).parameters)
    else:
        raise InvalidConfiguration(
            f"{path.name} is of an unknown kind; known are .pt2, {', '.join(weights.SUFFIXES)}"
        )
    _check_finite(module, path)
    return _described(module, path, _inputs(taken, example, path), example)


def load_calibration(path: Path) -> dict[str, Array]:
    """Read rows by input name from a ``.npz``, or those of the only input from a ``.npy``.

    Raises:
        InvalidInput: missing, too large, corrupted, holds Python objects, or rows differ in
            number, are of a type that no input takes, or not finite.
    """
    _check_file(path, MAX_CALIBRATION_BYTES)
    if path.suffix not in (".npz", ".npy"):
        raise InvalidInput(f"{path.name} is neither .npz nor .npy; save it with numpy.savez")
    try:
        arrays = _read_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, SyntaxError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise InvalidInput(
                f"{path.name} holds Python objects, which could run code: save plain number arrays"
            ) from error
        raise InvalidInput(f"{path.name} is corrupted or truncated: {quoted(error)}") from error
    if not arrays:
        raise InvalidInput(f"{path.name} holds no array")
    specs = [_spec(name, array, path.name) for name, array in arrays.items()]
    check(arrays, specs, least_rows=1, what=path.name)
    return arrays


def _read_arrays(path: Path) -> dict[str, Array]:
    if path.suffix == ".npy":
        return {UNNAMED: np.load(path, allow_pickle=False)}
    _check_archive(path, MAX_CALIBRATION_BYTES)
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) > MAX_ARRAYS:
            raise InvalidInput(f"{path.name} holds {len(archive.files)} arrays, over {MAX_ARRAYS}")
        return {name: archive[name] for name in archive.files}


def _check_file(path: Path, limit: int) -> None:
    if not path.is_file():
        raise InvalidInput(f"{path} is not there, or not a file")
    size = path.stat().st_size
    if size > limit:
        raise InvalidInput(f"{path.name} has {size} bytes; the limit is {limit}")
    if not size:
        raise InvalidInput(f"{path.name} is empty")
    if path.suffix == ".pt2" or (path.suffix in weights.PICKLED and zipfile.is_zipfile(path)):
        try:
            _check_archive(path, limit)
        except (zipfile.BadZipFile, OSError) as error:
            raise InvalidInput(f"{path.name} is corrupted or truncated: {quoted(error)}") from error


def _check_archive(path: Path, limit: int) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > limit:
        raise InvalidInput(f"{path.name} unpacks to {unpacked} bytes; the limit is {limit}")


def _spec(name: str, array: Array, what: str) -> TensorSpec:
    if array.dtype.name not in WIDTHS:
        raise InvalidInput(f"{what}: {name} is {array.dtype.name}; use float32, int32 or int64")
    if array.ndim < 1:
        raise InvalidInput(f"{what}: {name} is one number; rows are needed")
    return TensorSpec(name=name, shape=array.shape[1:], dtype=array.dtype.name)  # type: ignore[arg-type]  # checked above


def _inputs(taken: tuple[str, ...], example: Feeds, path: Path) -> tuple[TensorSpec, ...]:
    """Specs of the example's arrays in the order in which the module takes them."""
    if len(taken) == 1 and len(example) == 1:
        taken = tuple(example)
    if set(taken) != set(example):
        raise InvalidInput(
            f"the example has {', '.join(example) or 'nothing'}; {path.name} takes "
            f"{', '.join(taken)}: name the arrays so"
        )
    specs = tuple(_spec(name, example[name], "the example") for name in taken)
    check(example, specs, least_rows=1, what="the example")
    return specs


def _check_finite(module: "torch.nn.Module", path: Path) -> None:
    import torch

    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InvalidInput(f"{path.name}: {name} holds NaN or infinity; train again")


def _described(
    module: "torch.nn.Module", path: Path, inputs: tuple[TensorSpec, ...], example: Feeds
) -> FloatModel:
    """The float model, its outputs told by running the example."""
    import torch

    check_types(FloatModel(module=module, inputs=inputs, outputs=()))
    rows = take(example, range(min(TRIED_ROWS, len(example[inputs[0].name]))))
    try:
        with torch.no_grad():
            answered = module(*(torch.from_numpy(rows[spec.name]) for spec in inputs))
    except Exception as error:
        raise InvalidInput(
            f"{path.name} fails on the example: {type(error).__name__}: "
            f"{quoted(RuntimeError(' '.join(str(error).split())))}"
        ) from error
    if isinstance(answered, dict):
        module = _as_tuple(module)
    outputs = _outputs(answered, len(rows[inputs[0].name]), path)
    return FloatModel(module=module, inputs=inputs, outputs=outputs)


def _outputs(answered: Any, rows: int, path: Path) -> tuple[TensorSpec, ...]:
    import torch

    if isinstance(answered, dict):
        named = {str(name): tensor for name, tensor in answered.items()}
    elif isinstance(answered, tuple | list):
        named = {f"output_{place}": tensor for place, tensor in enumerate(answered)}
    else:
        named = {"output": answered}
    found = []
    for name, tensor in named.items():
        if not isinstance(tensor, torch.Tensor):
            raise InvalidInput(
                f"{path.name} answers {type(tensor).__name__} as {name}; it must answer one "
                "tensor, a tuple of tensors, or a dictionary of them"
            )
        if tensor.dim() < 1 or len(tensor) != rows:
            raise InvalidInput(
                f"{path.name} answers {list(tensor.shape)} as {name} to {rows} rows; "
                "the first dimension must be the batch"
            )
        found.append(_spec(name, tensor.numpy(), path.name))
    return tuple(found)


def _as_tuple(module: "torch.nn.Module") -> "torch.nn.Module":
    """Answers with the values of what ``module`` answers as a dictionary."""
    from torch import nn

    class Values(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *rows: Any) -> Any:
            return tuple(self.model(*rows).values())

    return Values().eval() if not hasattr(module, "graph") else Values()
