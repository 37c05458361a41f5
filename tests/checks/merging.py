"""The contract of everything that merges, as plain functions that hold for every such class.

Merging ignores order and grouping, has an empty identity, and agrees with one pass over all
rows, exactly: every summary here counts whole numbers. Shards of no row and of one row count
like any other.
"""

import ast
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PACKAGES = ("edge_core", "edge_agent", "fleet_server", "fleet_client", "converters")
ROOT = Path(__file__).parents[2]
ROUNDS = 5


class Summary(Protocol):
    """What is checked: it takes another of its class in."""

    def merge(self, other: Any) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A summary class with rows to summarise."""

    kind: type[Summary]
    rows: int
    over: Callable[[slice], Summary]
    """One pass over some of the rows; none for an empty slice."""
    read: Callable[[Summary], Any]
    """Everything that the summary holds, as a value that compares."""

    @property
    def name(self) -> str:
        return f"{self.kind.__module__}.{self.kind.__qualname__}"


def summary_classes() -> set[str]:
    """Every class of the packages that defines or inherits ``merge``, found in the source."""
    classes = dict(_classes(*PACKAGES))
    found: set[str] = set()
    while True:
        bases = {name.rpartition(".")[2] for name in found}
        more = {
            name
            for name, node in classes.items()
            if "merge" in _methods(node) or _bases(node) & bases
        }
        if more == found:
            return found
        found = more


def mergeless_classes() -> set[str]:
    """Statistics with ``update`` that cannot merge."""
    updating = {name for name, node in _classes("edge_core/stats") if "update" in _methods(node)}
    return updating - summary_classes()


def _classes(*folders: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ClassDef):
                    yield f"{module}.{node.name}", node


def _bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def _methods(node: ast.ClassDef) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {entry.name for entry in node.body if isinstance(entry, kinds)}


def check_merging_agrees_with_one_pass(case: Case) -> None:
    whole = case.read(case.over(slice(0, case.rows)))
    for parts in _partitions(case):
        assert case.read(_merged(case, parts)) == whole


def check_order_changes_nothing(case: Case) -> None:
    rng = np.random.default_rng(11)
    for parts in _partitions(case):
        expected = case.read(_merged(case, parts))
        for _ in range(ROUNDS):
            shuffled = [parts[place] for place in rng.permutation(len(parts))]
            assert case.read(_merged(case, shuffled)) == expected


def check_grouping_changes_nothing(case: Case) -> None:
    for parts in _partitions(case):
        shards = [case.over(part) for part in parts]
        while len(shards) > 1:
            # Neighbours in pairs, from the back: a tree, unlike the chain of _merged.
            right, left = shards.pop(), shards.pop()
            shards.insert(0, _merge(left, right))
        assert case.read(shards[0]) == case.read(_merged(case, parts))


def check_the_empty_summary_is_an_identity(case: Case) -> None:
    nothing = slice(0, 0)
    for part in (nothing, slice(0, 1), slice(0, case.rows)):
        expected = case.read(case.over(part))
        assert case.read(_merge(case.over(part), case.over(nothing))) == expected
        assert case.read(_merge(case.over(nothing), case.over(part))) == expected


def check_shards_of_one_row_count(case: Case) -> None:
    before = case.read(case.over(slice(0, case.rows - 1)))
    last = slice(case.rows - 1, case.rows)
    for parts in ([slice(0, case.rows - 1), last], [last, slice(0, case.rows - 1)]):
        assert case.read(_merged(case, parts)) != before
    ones = [slice(row, row + 1) for row in range(case.rows)]
    assert case.read(_merged(case, ones)) == case.read(case.over(slice(0, case.rows)))


def check_the_other_summary_is_left_alone(case: Case) -> None:
    first, second = case.over(slice(0, 2)), case.over(slice(2, 5))
    kept = case.read(second)
    first.merge(second)
    assert case.read(second) == kept
    # Nor may the two share anything that a later merge would change.
    first.merge(case.over(slice(5, case.rows)))
    assert case.read(second) == kept
    taken = case.read(first)
    second.merge(case.over(slice(0, case.rows)))
    assert case.read(first) == taken


def check_merging_an_empty_summary_first_shares_nothing(case: Case) -> None:
    empty, full = case.over(slice(0, 0)), case.over(slice(0, 3))
    kept = case.read(full)
    empty.merge(full)
    empty.merge(full)
    assert case.read(full) == kept
    assert case.read(case.over(slice(0, 0))) != case.read(empty)


CHECKS: list[Callable[[Case], None]] = [
    check for name, check in sorted(globals().items()) if name.startswith("check_")
]


def _merge(first: Summary, second: Summary) -> Summary:
    first.merge(second)
    return first


def _merged(case: Case, parts: list[slice]) -> Summary:
    return functools.reduce(_merge, [case.over(part) for part in parts])


def _partitions(case: Case) -> Iterator[list[slice]]:
    """Cuts of all rows into shards: whole, single rows, and random ones with empty shards."""
    rng = np.random.default_rng(7)
    yield [slice(0, case.rows)]
    yield [slice(row, row + 1) for row in range(case.rows)]
    for _ in range(ROUNDS):
        edges = np.sort(rng.integers(0, case.rows + 1, 6)).tolist()
        # The first edge comes twice, so that an empty shard is always among them.
        edges = [0, edges[0], *edges, case.rows]
        yield [slice(a, b) for a, b in itertools.pairwise(edges)]
