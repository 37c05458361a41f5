"""Finds the operator and the module that an exporter stopped at.

Where the exporter's error names an operator, that is looked up in the captured graph. Where it
does not, operators are given to it one by one until it refuses one alone.
"""

import contextlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from converters.capturing import module_path, operator
from edge_core.errors import quoted

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    Convert = Callable[[GraphModule, tuple[torch.Tensor, ...]], object]

_FAILED_NODE = re.compile(r"%(\w+) : .*?target=torch\.ops\.([\w.]+)", re.DOTALL)


def unsupported(error: Exception, program: "ExportedProgram | None", file: str) -> str:
    """One line that names the operator and the module that the exporter stopped at.

    Args:
        error: what the exporter raised; its text names the operator where it knows.
        program: what it was given, to find the module.
        file: what was to be made, such as ``ONNX``.
    """
    messages = _chain(error)
    for text in messages:
        match = _FAILED_NODE.search(text)
        if match:
            name, target = match.groups()
            return _line(target.removesuffix(".default"), _module_of(program, name, target), file)
    first = quoted(RuntimeError(" ".join(messages[-1].split())))
    return f"{file} export failed: {type(error).__name__}: {first}"


def unsupported_part(
    error: Exception,
    graph: "GraphModule",
    rows: "tuple[torch.Tensor, ...]",
    convert: "Convert",
    file: str,
) -> str:
    """As :func:`unsupported`; tries operators alone where the error names none.

    Args:
        error: what the exporter raised.
        graph: what it was given.
        rows: the example that it was given.
        convert: runs the exporter on a part of the graph.
        file: what was to be made.
    """
    if not any(_FAILED_NODE.search(text) for text in _chain(error)):
        node = _first_refused(graph, rows, convert)
        if node is not None:
            return _line(operator(node), module_path(node), file)
    return unsupported(error, _small_program(graph, rows), file)


def _first_refused(
    graph: "GraphModule", rows: "tuple[torch.Tensor, ...]", convert: "Convert"
) -> "Node | None":
    import torch

    values: dict[Node, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: "Node") -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.no_grad():
        Recorder(graph).run(*rows)
    tried = set()
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target in tried:
            continue
        tried.add(node.target)
        given = [n for n in node.all_input_nodes if isinstance(values[n], torch.Tensor)]
        if len(given) < len(node.all_input_nodes):
            continue
        try:
            convert(_alone(node, given), tuple(values[n].detach() for n in given))
        except Exception:  # whatever it is: this operator alone is refused
            refused: Node = node
            return refused
    return None


def _alone(node: "Node", given: "list[Node]") -> "GraphModule":
    """A graph of one operator that takes ``given``."""
    import torch

    graph = torch.fx.Graph()
    places = {source: graph.placeholder(f"x{order}") for order, source in enumerate(given)}
    graph.output(graph.node_copy(node, places.__getitem__))
    return torch.fx.GraphModule(torch.nn.Module(), graph).eval()


def _line(name: str, module: str, file: str) -> str:
    return (
        f"operator {name} in module {module} has no counterpart in {file}; "
        "replace it, or compute it outside of the model"
    )


def _small_program(
    graph: "GraphModule", rows: "tuple[torch.Tensor, ...]"
) -> "ExportedProgram | None":
    import torch

    try:
        return torch.export.export(graph, rows)
    except Exception:  # it only helps to name a module; the first error is what is told
        return None


def _chain(error: BaseException | None) -> list[str]:
    found = []
    while error is not None:
        found.append(str(error))
        error = error.__cause__
    return found


def _module_of(program: "ExportedProgram | None", name: str, target: str) -> str:
    """Exporters decompose before they translate, so look among the decomposed operators, too."""
    if program is None:
        return "(unknown)"
    graphs = [program.graph]
    with contextlib.suppress(Exception):  # an operator without rules; the plain graph has it
        graphs.append(program.run_decompositions().graph)
    nodes = [node for graph in graphs for node in graph.nodes if node.op == "call_function"]
    same = [node for node in nodes if operator(node) == target.removesuffix(".default")]
    exact = [node for node in same if node.name == name]
    alike = [node for node in nodes if target.split(".")[1] in operator(node)]
    return next(map(module_path, (*exact, *same, *alike)), "(unknown)")
