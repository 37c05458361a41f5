"""From a trained module to a graph of torch operators, with a batch that varies and nothing else.

The graph is torch.export's; each node still knows the module that it came from. What cannot be
captured is refused with the module and the line of code where capturing stopped.
"""

import contextlib
import copy
import linecache
import operator as operators
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.floating import FloatModel
from converters.refusal import StageFailed
from edge_core.errors import InvalidInput, quoted

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

MAX_BATCH = 65536
TRACED_BATCH = 3
"""Any number but 0 and 1, which torch treats apart."""
ROOT = "(root)"
"""Stands for the outermost module, whose path is empty."""
CHANCE = ("rand", "bernoulli", "multinomial", "normal", "poisson", "uniform", "exponential")
"""How the names of operators begin that draw random numbers."""
WIDTHS = {"float32", "int32", "int64"}


def capture(model: FloatModel) -> "GraphModule":
    """The model as one graph of ATen operators, weights shared; see :func:`capture_program`."""
    return capture_program(model).module(check_guards=False)


def capture_program(model: FloatModel) -> "ExportedProgram":
    """The model as torch.export has it, checked; the caller's module is untouched.

    Raises:
        InvalidInput: a parameter's or an input's type is not one that devices run.
        StageFailed: code that depends on values, a batch that cannot vary, an operator without
            shape rules or with random answers, or outputs other than declared.
    """
    check_types(model)
    program = export_program(_private_copy(model), model)
    for node in program.graph.nodes:
        _refuse_sizes_from_data(node)
        _refuse_training(node)
        _refuse_chance(node)
    _check_outputs(program, model)
    return program


def example_rows(model: FloatModel, rows: int) -> "tuple[torch.Tensor, ...]":
    """Zeros for every input, [rows, ...]."""
    import torch

    return tuple(
        torch.zeros((rows, *spec.shape), dtype=getattr(torch, spec.dtype)) for spec in model.inputs
    )


def export_program(module: "torch.nn.Module", model: FloatModel) -> "ExportedProgram":
    """Run torch.export with a dynamic batch; see :func:`capture_program` for what is refused."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    rows = example_rows(model, TRACED_BATCH)
    shapes = tuple({0: batch} for _ in rows)
    inside: list[str] = []
    with _tracked(module, inside), _plain_attention():
        try:
            return torch.export.export(module, rows, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise StageFailed(_why(error, inside)) from error


def module_path(node: "Node") -> str:
    """The path of the torch module that a node came from."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((name for name, _ in reversed(list(stack.values()))), "")
    return str(path) or ROOT


def operator(node: "Node") -> str:
    """A node's operator as torch calls it, such as ``aten.linalg_svd``."""
    if node.target is operators.getitem and node.args:
        source: Any = node.args[0]
        return operator(source)
    return str(node.target).removesuffix(".default")


def check_types(model: FloatModel) -> None:
    """Refuse parameters and inputs of types that the converter does not take.

    Raises:
        InvalidInput: names the parameter or input, its type and the way out.
    """
    for spec in (*model.inputs, *model.outputs):
        if spec.dtype not in WIDTHS:
            raise InvalidInput(f"{spec.name} is {spec.dtype}; use float32, int32 or int64")
    for name, tensor in model.module.named_parameters():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind != "float32":
            raise InvalidInput(f"parameter {name} is {kind}; hand over a float32 model: .float()")
    for name, held in model.module.named_buffers():
        kind = str(held.dtype).removeprefix("torch.")
        if (held.is_floating_point() or held.is_complex()) and kind != "float32":
            raise InvalidInput(f"buffer {name} is {kind}; hand over a float32 model: .float()")


def _private_copy(model: FloatModel) -> "torch.nn.Module":
    from torch.fx import GraphModule

    module = copy.deepcopy(model.module)
    # A loaded program refuses eval(): its mode was fixed when it was exported.
    return module if isinstance(module, GraphModule) else module.eval()


@contextlib.contextmanager
def _tracked(module: "torch.nn.Module", inside: list[str]) -> Iterator[None]:
    """Keep in ``inside`` the paths of the modules that are running; what fails stays there."""
    hooks = []
    for path, part in module.named_modules():

        def enter(*_: Any, path: str = path) -> None:
            inside.append(path)

        def leave(*_: Any) -> None:
            inside.pop()

        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as plain operators: torch's fused one has no counterpart elsewhere."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _why(error: Exception, inside: list[str]) -> str:
    from torch.fx.experimental.symbolic_shapes import ConstraintViolationError

    if isinstance(error, ConstraintViolationError) or "Constraints violated" in str(error):
        return (
            "the model works for some batch sizes only: something in it fixes the first "
            "dimension; use -1 or x.shape[0] for it"
        )
    where = f"module {inside[-1] or ROOT}" if inside else "the model"
    line = _user_line(error)
    if "data-dependent" in str(error).lower() or "DataDependent" in type(error).__name__:
        return (
            f"{where} decides by values of its input{line}: a graph cannot; "
            "compute both ways and choose with torch.where"
        )
    first = quoted(RuntimeError(str(error).strip().split("\n")[0]))
    return f"{where} cannot be captured{line}: {type(error).__name__}: {first}"


def _user_line(error: Exception) -> str:
    """The deepest line outside of torch, without the folder."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        parts = Path(frame.filename).parts
        if "torch" not in parts and frame.filename != __file__ and Path(frame.filename).exists():
            code = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f" at {parts[-1]}:{frame.lineno} ({code[:80]})"
    return ""


def _refuse_sizes_from_data(node: "Node") -> None:
    import torch
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and free_unbacked_symbols(value):
        raise StageFailed(
            f"operator {operator(node)} in module {module_path(node)} makes a tensor whose size "
            "depends on values; keep every size but the batch fixed, with a mask for instance"
        )


def _refuse_training(node: "Node") -> None:
    name = operator(node)
    training = (name == "aten.batch_norm" and node.args[5]) or (
        name in ("aten.dropout", "aten.feature_dropout") and node.args[2]
    )
    if training:
        raise StageFailed(
            f"operator {name} in module {module_path(node)} is in training mode "
            "or keeps no running statistics; call eval() before torch.export"
        )


def _refuse_chance(node: "Node") -> None:
    if operator(node).removeprefix("aten.").startswith(CHANCE):
        raise StageFailed(
            f"operator {operator(node)} in module {module_path(node)} draws random numbers; "
            "a release must answer the same rows the same way"
        )


def _check_outputs(program: "ExportedProgram", model: FloatModel) -> None:
    nodes = program.graph.output_node().args[0]
    assert isinstance(nodes, tuple | list)
    if len(nodes) != len(model.outputs):
        raise StageFailed(f"the model answers {len(nodes)} outputs, not {len(model.outputs)}")
    first = next(node for node in program.graph.nodes if node.name in _fed(program))
    batch = first.meta["val"].shape[0]
    for node, spec in zip(nodes, model.outputs, strict=True):
        value: Any = getattr(node, "meta", {}).get("val")
        shape = tuple(getattr(value, "shape", ()))
        if not shape or str(shape[0]) != str(batch):
            raise StageFailed(f"output {spec.name} has no row for each row of the batch")
        found = ", ".join(map(str, shape[1:]))
        if found != ", ".join(map(str, spec.shape)):
            raise StageFailed(
                f"output {spec.name} has shape [batch, {found}]; declared is "
                f"[batch, {', '.join(map(str, spec.shape))}], and only the batch may vary"
            )
        kind = str(value.dtype).removeprefix("torch.")
        if kind != spec.dtype:
            raise StageFailed(f"output {spec.name} is {kind}; declared is {spec.dtype}")


def _fed(program: "ExportedProgram") -> set[str]:
    return set(program.graph_signature.user_inputs)
