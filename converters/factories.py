"""Runs the model builder's own function that makes an untrained module."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_core.errors import InvalidConfiguration, InvalidInput, quoted

if TYPE_CHECKING:
    import torch

MODULE = "serinus_factory"
"""Name under which a file is imported, so that nothing depends on where it lies."""


def make(factory: str) -> "torch.nn.Module":
    """Call ``file.py:function`` or ``package.module:function``.

    Modules that lie beside the file, or in the working directory, can be imported by it.

    Raises:
        InvalidConfiguration: it is not written so, or cannot be found or imported.
        InvalidInput: it raises, or makes something other than a torch module.
    """
    from torch import nn

    place, _, name = factory.rpartition(":")
    if not place or not name.isidentifier():
        raise InvalidConfiguration(
            f"factory {factory!r}: write it as file.py:function or package.module:function"
        )
    file = Path(place) if place.endswith(".py") else None
    with _importable(file.resolve().parent if file else Path.cwd()):
        function = _function(place, file, name, factory)
        try:
            made = function()
        except (Exception, SystemExit) as error:
            raise InvalidInput(
                f"factory {factory} failed: {type(error).__name__}: {_line(error)}"
            ) from error
    if not isinstance(made, nn.Module):
        raise InvalidInput(f"factory {factory} made {type(made).__name__}, not a torch.nn.Module")
    return made


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _function(place: str, file: Path | None, name: str, factory: str) -> Any:
    try:
        module = importlib.import_module(place) if file is None else _from_file(file)
        return getattr(module, name)
    except FileNotFoundError as error:
        raise InvalidConfiguration(f"factory {factory}: {place} is not there") from error
    except AttributeError as error:
        raise InvalidConfiguration(f"factory {factory}: no function {name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InvalidConfiguration(
            f"factory {factory} cannot be imported: {type(error).__name__}: {_line(error)}"
        ) from error


def _from_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise FileNotFoundError(file)
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


def _line(error: BaseException) -> str:
    return quoted(RuntimeError(" ".join(str(error).split())))
