"""Opens a ``.pt2`` of ``torch.export.save`` without running code that it might hold.

torch reads parts of such an archive as pickles, evaluates its size expressions and looks its
operators up by name, all of which can run anything. So the archive is looked through first.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import weights
from edge_core.errors import InvalidInput, quoted

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_OPERATOR = re.compile(
    r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._C\._set_grad_enabled"
)
_SYMBOL = re.compile(r"Symbol\('\w+'")
_EXPRESSION = re.compile(r"[\w\s+\-*/(),.<>=!&|~%]{1,1000}")
_ACCESS = re.compile(r"__|[A-Za-z_]\w*\s*\.|\)\s*[.(]")
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_LOWER_FUNCTIONS = {"floor", "ceiling"}
"""Functions of sizes are classes and begin with a capital; what Python brings does not."""
MAX_ENTRIES = 100_000


def load(path: Path) -> "tuple[torch.nn.Module, tuple[str, ...]]":
    """The module, and the names of the inputs that it takes, in order.

    Raises:
        InvalidInput: corrupted, of another version, needs code, or was exported with a fixed
            batch or with other sizes that vary.
    """
    import torch

    _screen(path)
    try:
        program = torch.export.load(path)
        module = program.module(check_guards=False)
    except Exception as error:
        raise InvalidInput(
            f"{path.name} is corrupted, or of another torch than {torch.__version__}: "
            f"{quoted(RuntimeError(' '.join(str(error).split())))}"
        ) from error
    return module, _inputs(program, path.name)


def _screen(path: Path) -> None:
    """Refuse an archive that torch would run code from."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist()]
            if len(names) > MAX_ENTRIES:
                raise InvalidInput(f"{path.name} has {len(names)} entries, over {MAX_ENTRIES}")
            if not any(name.endswith("/archive_format") for name in names):
                raise InvalidInput(
                    f"{path.name} is not what torch.export.save of torch 2.8 or later writes: "
                    "export it again"
                )
            for name in names:
                _screen_entry(path.name, name, archive)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RecursionError) as error:
        raise InvalidInput(f"{path.name} is corrupted or truncated: {quoted(error)}") from error


def _screen_entry(file: str, name: str, archive: zipfile.ZipFile) -> None:
    plain = name.partition("/")[2]
    if plain.startswith("data/aotinductor/"):
        raise InvalidInput(f"{file} holds compiled code; save it with torch.export.save instead")
    if plain.endswith(".pt"):
        weights.read_pickled(io.BytesIO(archive.read(name)), f"{file} ({plain})")
    elif plain.endswith("_config.json"):
        _screen_payloads(file, json.loads(archive.read(name)))
    elif plain.startswith("models/"):
        _screen_model(file, json.loads(archive.read(name)))


def _screen_payloads(file: str, said: Any) -> None:
    for name, entry in said["config"].items() if isinstance(said, dict) else ():
        if entry.get("use_pickle") or "obj" in str(entry.get("path_name")):
            raise InvalidInput(
                f"{file}: {name} is a pickled object, which could run code; only plain tensors "
                "are taken"
            )


def _screen_model(file: str, said: Any) -> None:
    for key, value in _strings(said):
        if key == "target" and not _OPERATOR.fullmatch(value):
            raise InvalidInput(f"{file} calls {value[:80]!r}, which is no operator of a model")
        if key == "expr_str" and not _is_size(value):
            raise InvalidInput(f"{file} has the size {value[:80]!r}, which is no expression")


def _is_size(text: str) -> bool:
    """Whether a size is written with numbers, symbols and their functions only."""
    text = _SYMBOL.sub("Symbol(s", text)
    called = {name for name in _CALLED.findall(text) if not name[0].isupper()}
    return bool(
        _EXPRESSION.fullmatch(text) and not _ACCESS.search(text) and called <= _LOWER_FUNCTIONS
    )


def _strings(said: Any) -> Iterator[tuple[str, str]]:
    """Every string in a JSON document with the key that it stands under."""
    left: list[tuple[str, Any]] = [("", said)]
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            left.extend(value.items())
        elif isinstance(value, list):
            left.extend((key, item) for item in value)


def _inputs(program: "ExportedProgram", file: str) -> tuple[str, ...]:
    import torch

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = tuple(program.graph_signature.user_inputs)
    for name in names:
        value = nodes[str(name)].meta.get("val") if str(name) in nodes else None
        if not isinstance(value, torch.Tensor):
            raise InvalidInput(f"{file}: input {name} is not a tensor; fix it before the export")
        if not value.dim() or isinstance(value.shape[0], int):
            raise InvalidInput(
                f"{file}: input {name} has the fixed shape {list(value.shape)}; export it with "
                "dynamic_shapes that name the first dimension of every input, {0: Dim('batch')}"
            )
        if not all(isinstance(size, int) for size in value.shape[1:]):
            raise InvalidInput(
                f"{file}: input {name} has the shape {list(value.shape)}; only the first "
                "dimension, the batch, may vary"
            )
    return tuple(map(str, names))
