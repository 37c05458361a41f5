"""A model file as plain steps, whatever its format, and the decision what to quantise in it."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from converters.model_file import ModelFile
from edge_core.errors import InvalidInput


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a float file."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Names of float tensors that are computed, in order; no constants."""
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    """Names of constant float32 tensors with more than one dimension."""


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """Which operators of a format do what."""

    products: frozenset[str]
    """Sums of products: what int8 is for."""
    carried: frozenset[str]
    """Work on int8 between products, so that values need not be turned back to float."""
    absorbed: frozenset[str]
    """Part of the product before them once quantised."""


def layers(file: ModelFile, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Steps, by name and in order, gathered by the torch module that they came from.

    A step whose module is not known, or is the outermost, is a layer of its own.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        path = file.origins.get(name, "")
        found.setdefault(path if path and not path.startswith("(") else name, []).append(name)
    return {path: tuple(parts) for path, parts in found.items()}


def kept_steps(file: ModelFile, steps: Sequence[Step], names: Iterable[str]) -> set[str]:
    """Step names that layers or steps, by name, stand for.

    Raises:
        InvalidInput: there is no such layer; the message has those that there are.
    """
    known = layers(file, (step.name for step in steps))
    plain = {step.name for step in steps}
    found: set[str] = set()
    for name in names:
        if name not in known and name not in plain:
            weighted = layers(file, (step.name for step in steps if step.weights))
            raise InvalidInput(
                f"no layer {name} to leave in float; layers are {', '.join(weighted)}"
            )
        found.update(known.get(name, (name,)))
    return found


def between_products(steps: Sequence[Step], kinds: Kinds, products: Collection[str]) -> list[str]:
    """Names of the steps to quantise: products, and what carries int8 from one to the next.

    What comes before the first product, such as the scaling of raw features, stays in float, and
    so does what follows the last one. A step that mixes in values that never were int8 does, too.

    Args:
        steps: of the graph, in order.
        kinds: of the format.
        products: names of the steps that are quantised in any case.
    """
    chosen: set[str] = set()
    held: set[str] = set()
    """Tensors whose values exist in int8."""
    for step in steps:
        fits = step.kind in kinds.carried | kinds.absorbed
        fed = bool(step.inputs) and all(name in held for name in step.inputs)
        if step.name in products or (fits and fed):
            chosen.add(step.name)
            held.update(step.outputs)
    readers = _readers(steps)
    for step in reversed(steps):
        if step.name not in chosen or step.name in products or step.kind in kinds.absorbed:
            continue
        if not any(reader in chosen for name in step.outputs for reader in readers.get(name, ())):
            chosen.discard(step.name)
    return [step.name for step in steps if step.name in chosen]


def _readers(steps: Iterable[Step]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for step in steps:
        for name in step.inputs:
            found.setdefault(name, []).append(step.name)
    return found
