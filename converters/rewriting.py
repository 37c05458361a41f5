"""Rewrites of a captured graph that leave its answers as they are and make it cheaper to run."""

import operator as operators
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, GraphModule, Node

LIFTABLE = (
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "clamp",
    "add.Tensor",
    "mul.Tensor",
    "dropout",
)
"""Operators that do the same in four dimensions, where the third has size 1."""


def has_batch_norms(graph: "Graph") -> bool:
    """Whether there is anything to fold."""
    import torch

    return any(node.target is torch.ops.aten.batch_norm.default for node in graph.nodes)


def fold_batch_norms(graph_module: "GraphModule") -> None:
    """Fold every batch norm: into the convolution or linear layer before it, or to ``x * a + b``.

    Works in place on the graph; weights are new tensors, the old ones stay as they were. The
    arithmetic is ``torch.nn.utils.fusion``'s.
    """
    import torch

    for node in list(graph_module.graph.nodes):
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        if not _fold_into_producer(graph_module, node):
            _fold_to_affine(graph_module, node)
    _tidy(graph_module)


def widen_conv1d(graph_module: "GraphModule") -> None:
    """Run 1-D convolutions, and what stands between them, as 2-D ones of height 1.

    Works in place on the graph. Tensors stay four-dimensional from the first convolution to the
    first operator that needs the old shape, so nothing is reshaped in between.
    """
    import torch

    graph = graph_module.graph
    lifted: dict[Node, Node] = {}
    for node in list(graph.nodes):
        made = _lift(graph_module, node, lifted)
        if made is None:
            continue
        with graph.inserting_before(node):
            flat = graph.call_function(torch.ops.aten.squeeze.dim, (made, 2))
        made.meta, flat.meta = _kept(node), _kept(node)
        node.replace_all_uses_with(flat)
        lifted[flat] = made
    _tidy(graph_module)


def _fold_into_producer(graph_module: "GraphModule", norm: "Node") -> bool:
    import torch
    from torch.nn.utils import fusion

    producer: Any = norm.args[0]
    aten = torch.ops.aten
    plain = (
        aten.conv1d.default,
        aten.conv1d.padding,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.conv3d.default,
    )
    turned = (aten.conv_transpose1d.default, aten.conv_transpose2d.input)
    linear = producer.target is aten.linear.default
    if len(producer.users) != 1 or not (linear or producer.target in (*plain, *turned)):
        return False
    if linear and producer.meta["val"].dim() != 2:
        return False
    weight, bias = (_tensor(graph_module, _argument(producer, place)) for place in (1, 2))
    mean, variance, scale, shift, epsilon = _statistics(graph_module, norm)
    if weight is None or (producer.target in turned and _grouped(producer)):
        return False
    fuse: Callable[..., Any] = fusion.fuse_linear_bn_weights
    options = {}
    if not linear:
        fuse, options = fusion.fuse_conv_bn_weights, {"transpose": producer.target in turned}
    with torch.no_grad():
        made = fuse(weight, bias, mean, variance, epsilon, scale, shift, **options)
    with graph_module.graph.inserting_before(producer):
        nodes = [_constant(graph_module, f"folded_{producer.name}", made[0].detach())]
        nodes.append(_constant(graph_module, f"folded_{producer.name}_bias", made[1].detach()))
    arguments = list(producer.args) + [None] * (3 - len(producer.args))
    producer.args = (arguments[0], *nodes, *arguments[3:])
    norm.replace_all_uses_with(producer)
    return True


def _fold_to_affine(graph_module: "GraphModule", norm: "Node") -> None:
    import torch

    mean, variance, scale, shift, epsilon = _statistics(graph_module, norm)
    given: Any = norm.args[0]
    value = given.meta["val"]
    shape = (1, -1, *(1 for _ in range(value.dim() - 2)))
    with torch.no_grad():
        gain = torch.rsqrt(variance + epsilon) * scale
        offset = shift - mean * gain
    graph = graph_module.graph
    with graph.inserting_before(norm):
        factor = _constant(graph_module, f"gain_{norm.name}", gain.reshape(shape).detach())
        addend = _constant(graph_module, f"offset_{norm.name}", offset.reshape(shape).detach())
        scaled = graph.call_function(torch.ops.aten.mul.Tensor, (given, factor))
        moved = graph.call_function(torch.ops.aten.add.Tensor, (scaled, addend))
    scaled.meta, moved.meta = _kept(norm), _kept(norm)
    moved.meta["val"] = scaled.meta["val"] = norm.meta["val"]
    norm.replace_all_uses_with(moved)


def _statistics(graph_module: "GraphModule", norm: "Node") -> tuple[Any, Any, Any, Any, Any]:
    """Mean, variance, scale, shift and epsilon."""
    import torch

    scale, shift, mean, variance = (_tensor(graph_module, norm.args[i]) for i in (1, 2, 3, 4))
    assert mean is not None, "capturing refuses batch norms without statistics"
    scale = torch.ones_like(mean) if scale is None else scale
    shift = torch.zeros_like(mean) if shift is None else shift
    return mean, variance, scale, shift, norm.args[7]


def _grouped(node: "Node") -> bool:
    groups: Any = _argument(node, 6)
    return groups not in (None, 1)


def _lift(graph_module: "GraphModule", node: "Node", lifted: "dict[Node, Node]") -> "Node | None":
    """The node done in four dimensions; none where it is not one that can be."""
    import torch

    aten, graph = torch.ops.aten, graph_module.graph
    given = _argument(node, 0)
    with graph.inserting_before(node):
        if node.target in (aten.conv1d.default, aten.conv1d.padding):
            return _lift_convolution(graph_module, node, lifted.get(given))
        if given not in lifted:
            return None
        if node.target in (aten.max_pool1d.default, aten.avg_pool1d.default):
            return _lift_pool(graph_module, node, lifted[given])
        if node.target is aten.adaptive_avg_pool1d.default:
            size: Any = node.args[1]
            return graph.call_function(
                aten.adaptive_avg_pool2d.default, (lifted[given], [1, size[0]])
            )
        if not _same_in_4d(node, lifted):
            return None
        given_all: Any = node.args
        arguments = tuple(lifted.get(a, a) if _is_node(a) else a for a in given_all)
        target: Any = node.target
        return graph.call_function(target, arguments, dict(node.kwargs))


def _same_in_4d(node: "Node", lifted: "dict[Node, Node]") -> bool:
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    return name in LIFTABLE and all(a in lifted for a in node.args if _is_node(a))


def _lift_convolution(
    graph_module: "GraphModule", node: "Node", given: "Node | None"
) -> "Node | None":
    import torch

    weight = _tensor(graph_module, node.args[1])
    if weight is None:
        return None
    aten, graph = torch.ops.aten, graph_module.graph
    if given is None:
        given = _widened(graph_module, node)
    wide = _constant(graph_module, f"wide_{node.name}", weight.detach().unsqueeze(2))
    bias = node.args[2] if len(node.args) > 2 else None
    stride, padding, dilation = (_pair(node, 3, 1), _pair(node, 4, 0), _pair(node, 5, 1))
    groups = node.args[6] if len(node.args) > 6 else 1
    named = node.target is aten.conv1d.padding
    return graph.call_function(
        aten.conv2d.padding if named else aten.conv2d.default,
        (given, wide, bias, stride, padding, dilation, groups),
    )


def _widened(graph_module: "GraphModule", node: "Node") -> "Node":
    """A convolution's input [batch, channels, steps] as [batch, channels, 1, steps].

    Windows often come as [batch, steps, channels]; runtimes want channels last, too, and two
    turns that undo each other vanish only where the graph shows them as such.
    """
    import torch

    aten, graph = torch.ops.aten, graph_module.graph
    source: Any = node.args[0]
    turned = source.target is aten.transpose.int and {place % 3 for place in source.args[1:]} == {
        1,
        2,
    }
    turned = turned or (source.target is aten.permute.default and source.args[1] == [0, 2, 1])
    if not turned:
        made = graph.call_function(aten.unsqueeze.default, (source, 2))
        made.meta = _kept(node)
        return made
    tall = graph.call_function(aten.unsqueeze.default, (source.args[0], 1))
    made = graph.call_function(aten.permute.default, (tall, [0, 3, 1, 2]))
    tall.meta, made.meta = _kept(source), _kept(source)
    return made


def _lift_pool(graph_module: "GraphModule", node: "Node", given: "Node") -> "Node":
    import torch

    aten = torch.ops.aten
    kernel = _pair(node, 1, 1)
    stride = _pair(node, 2, 1) if len(node.args) > 2 and node.args[2] else kernel
    padding = _pair(node, 3, 0)
    if node.target is aten.max_pool1d.default:
        rest: tuple[Any, ...] = (_pair(node, 4, 1), *node.args[5:])
        pool: Any = aten.max_pool2d.default
    else:
        rest, pool = node.args[4:], aten.avg_pool2d.default
    return graph_module.graph.call_function(pool, (given, kernel, stride, padding, *rest))


def _pair(node: "Node", place: int, neutral: int) -> Any:
    """A 1-D setting for height and width; a padding's name stays as it is."""
    found: Any = node.args[place] if len(node.args) > place else neutral
    if isinstance(found, str):
        return found
    return [neutral, found[0] if isinstance(found, list | tuple) else found]


def _is_node(argument: Any) -> bool:
    from torch.fx import Node

    return isinstance(argument, Node)


def _argument(node: "Node", place: int) -> Any:
    return node.args[place] if len(node.args) > place else None


def _tensor(graph_module: "GraphModule", node: Any) -> "torch.Tensor | None":
    """The parameter or constant that a node stands for."""
    if not _is_node(node) or node.op != "get_attr":
        return None
    found: torch.Tensor = operators.attrgetter(node.target)(graph_module)
    return found


def _constant(graph_module: "GraphModule", name: str, value: "torch.Tensor") -> "Node":
    graph_module.register_buffer(name, value)
    return graph_module.graph.get_attr(name)


def _kept(node: "Node") -> dict[str, Any]:
    """What later readers want of a replaced node: where it came from."""
    wanted = ("nn_module_stack", "stack_trace", "from_node")
    return {key: node.meta[key] for key in wanted if key in node.meta}


def _tidy(graph_module: "GraphModule") -> None:
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
