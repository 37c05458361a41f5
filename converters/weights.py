"""Weights from a file into a module, without running code that the file might hold."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_core.errors import InvalidInput, quoted

if TYPE_CHECKING:
    import torch

PICKLED = (".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLED)
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints keep the weights beside other things."""
SHOWN = 3
SAFE_WAY = (
    "save torch.save(model.state_dict(), ...) or safetensors.torch.save_file(model.state_dict(), "
    "...), or torch.export.save as .pt2"
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def fill(module: "torch.nn.Module", path: Path) -> None:
    """Load a state dict into a module whose keys and shapes it must match exactly.

    Raises:
        InvalidInput: corrupted, needs code to be unpickled, or does not fit; says what differs.
    """
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    wanted = module.state_dict()
    problems = [
        *_listed("lacks", wanted.keys() - found.keys()),
        *_listed("has, unlike the module,", found.keys() - wanted.keys()),
        *_listed("differs in", _different(wanted, found)),
    ]
    if problems:
        raise InvalidInput(f"{path.name} does not fit the factory's module: {'; '.join(problems)}")
    module.load_state_dict(found)


def read_pickled(source: Any, name: str) -> Any:
    """Unpickle tensors and plain containers from a path or stream, nothing that runs code.

    Raises:
        InvalidInput: corrupted, or needs code.
    """
    import torch

    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        needed = _GLOBAL.search(str(error))
        sure = needed or "TorchScript" in str(error)
        if not sure and not isinstance(error, pickle.UnpicklingError):
            raise InvalidInput(f"{name} is corrupted or truncated: {_first(error)}") from error
        what = f" ({needed[1]})" if needed else ""
        raise InvalidInput(
            f"{name} is {'' if sure else 'damaged, or '}a pickle that needs code{what}, which "
            f"could do anything: {SAFE_WAY}"
        ) from error


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(f"{path.name} is corrupted or truncated: {_first(error)}") from error


def _pickled(path: Path) -> dict[str, Any]:
    import torch

    found = read_pickled(path, path.name)
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        raise InvalidInput(f"{path.name} holds no state dict (names to tensors): {SAFE_WAY}")
    return dict(found)


def _different(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    said = []
    for name in wanted.keys() & found.keys():
        ours, theirs = wanted[name], found[name]
        if ours.shape != theirs.shape:
            said.append(f"{name}: {list(theirs.shape)}, the module's is {list(ours.shape)}")
        elif ours.is_floating_point() != theirs.is_floating_point():
            said.append(
                f"{name}: {theirs.dtype}, the module's is {ours.dtype}".replace("torch.", "")
            )
    return said


def _listed(what: str, names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return [f"it {what} {', '.join(ordered[:SHOWN])}{more}"] if ordered else []


def _first(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return quoted(RuntimeError(lines[0] if lines else type(error).__name__))
