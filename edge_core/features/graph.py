"""How features build on one another: their order, their columns, what each may take."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from edge_core.features.over_rows import (
    Cyclic,
    Difference,
    Hash,
    Join,
    Lookup,
    Missing,
    OfOne,
    OfTime,
    OneHot,
    OneHotCode,
    OverRows,
    Ratio,
    Registered,
)
from edge_core.features.over_time import OverTime

Operation = OverTime | OverRows
Kind = Literal["number", "text", "time"]
Some = TypeVar("Some", bound=Operation)

MAX_DEPTH = 64
"""Features that build on one another; far below what Python can nest."""
UNKNOWN = "other"
"""Name of a one-hot's last column."""


def needs(feature: Operation) -> list[str]:
    """Names of the fields and features that a feature is computed from."""
    match feature:
        case Ratio():
            return [feature.input, feature.over]
        case Difference():
            return [feature.input, feature.minus]
        case Join() | Registered():
            return list(feature.inputs)
        case OfOne():
            return [feature.input]
        case _:
            return []


def kind(feature: Operation) -> Kind:
    """What a feature's value is."""
    return "text" if isinstance(feature, Join) else "number"


def columns(feature: Operation) -> list[str]:
    """Names of a feature's columns, in order."""
    name = feature.name
    match feature:
        case OneHot():
            return [f"{name}={value}" for value in [*feature.values, UNKNOWN]]
        case OneHotCode():
            return [f"{name}={code}" for code in [*range(feature.codes), UNKNOWN]]
        case Cyclic():
            return [f"{name}_sin", f"{name}_cos"]
        case _:
            return [name]


def ordered(features: Sequence[Some], given: Iterable[str]) -> list[Some]:
    """The features, each after those that it needs.

    Args:
        features: in any order.
        given: names that are there from the start.

    Raises:
        ValueError: a name is unknown, or features need one another in a circle.
    """
    by_name = {feature.name: feature for feature in features}
    known = set(given)
    done: dict[str, Some] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in known or name in done:
            return
        if len(path) > MAX_DEPTH:
            raise ValueError(
                f"feature {path[0]}: more than {MAX_DEPTH} features build on one another in a row"
            )
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise ValueError(f"features need one another in a circle: {circle}")
        if name not in by_name:
            raise ValueError(f"feature {path[-1]}: unknown input {name}")
        for needed in needs(by_name[name]):
            visit(needed, (*path, name))
        done[name] = by_name[name]

    for feature in features:
        visit(feature.name, ())
    return list(done.values())


def check_kinds(features: Iterable[Operation], given: Mapping[str, Kind]) -> None:
    """Raise ``ValueError`` where a feature takes what it cannot, such as a text to be scaled."""
    listed = list(features)
    kinds = {**given, **{feature.name: kind(feature) for feature in listed}}
    wide = {feature.name for feature in listed if len(columns(feature)) > 1}
    for feature in listed:
        for needed in needs(feature):
            wanted = _takes(feature)
            if kinds[needed] not in wanted:
                raise ValueError(
                    f"feature {feature.name}: {needed} is a {kinds[needed]}; "
                    f"{type(feature).__name__} takes a {' or '.join(wanted)}"
                )
            if needed in wide:
                raise ValueError(f"feature {feature.name}: {needed} has more than one column")


def _takes(feature: Operation) -> tuple[Kind, ...]:
    match feature:
        case Missing():
            return ("number", "text", "time")
        case Join() | OneHot() | Hash() | Lookup():
            return ("text",)
        case OfTime():
            return ("time",)
        case _:
            return ("number",)
