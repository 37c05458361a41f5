"""What a replay of a log through training's and a device's entry found, of either kind."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_core.features import agreement
from edge_core.features.agreement import Agreement, Float32, Key

Step = Callable[[str], AbstractContextManager[object]]
"""Shows a step for as long as it runs."""
unseen: Step = nullcontext
SHOWN_NAMES = 12


class Replayed(Agreement, frozen=True, kw_only=True):
    """The comparison, and what the log had in it: a proof covers no more."""

    kind: Literal["windows", "requests"]
    exercised: dict[str, int]
    """How often each case occurred that one of the two could have got wrong."""
    constant: list[str]
    """Features with the same value in every row."""


def compare(
    kind: Literal["windows", "requests"],
    names: Sequence[str],
    expected: Mapping[Key, Float32],
    found: Mapping[Key, Float32],
    exercised: Mapping[str, int],
) -> Replayed:
    """Compare what training computed with what a device computed; as ``agreement.compare``."""
    compared = agreement.compare(names, expected, found)
    rows = np.array(list(expected.values()), np.float32).reshape(len(expected), len(names))
    return Replayed(
        **msgspec.structs.asdict(compared),
        kind=kind,
        exercised=dict(exercised),
        constant=constant(names, rows),
    )


def constant(names: Sequence[str], rows: Float32) -> list[str]:
    """Features of rows float32 [n, features] that have one value throughout."""
    same = (rows == rows[:1]).all(axis=0)
    return [name for name, alike in zip(names, same.tolist(), strict=True) if alike]


def show(console: Console, found: Replayed) -> None:
    """A line for each feature that differs, the sum, and what it covers."""
    table = Table("feature", "compared", "mismatched", "first rows that differ")
    for feature in found.features:
        if feature.mismatched:
            first = "; ".join(
                f"{one.row}: {one.expected!r} trained, {one.found!r} served"
                for one in feature.first
            )
            table.add_row(
                Text(feature.feature), f"{feature.compared}", f"{feature.mismatched}", Text(first)
            )
    if table.row_count:
        console.print(table)
    for what, count, rows in (
        ("missing in serving", found.missing, found.first_missing),
        ("extra in serving", found.extra, found.first_extra),
    ):
        if count:
            console.print(f"{count} rows {what}, such as {'; '.join(rows)}", markup=False)
    for line in [*_covered(found), _sum(found)]:
        console.print(line, markup=False)


def _covered(found: Replayed) -> list[str]:
    there = [f"{name} {count}" for name, count in found.exercised.items() if count]
    lacking = [name for name, count in found.exercised.items() if not count]
    said = [f"the log has: {', '.join(there) or 'nothing special'}"]
    if lacking:
        said.append(f"the log has not, so this proves nothing of: {', '.join(lacking)}")
    if found.constant:
        said.append(f"same in every row: {listed(found.constant)}")
    return said


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _sum(found: Replayed) -> str:
    differing = sum(bool(feature.mismatched) for feature in found.features)
    return (
        f"{found.rows} {found.kind}, {len(found.features)} features compared: {differing} features "
        f"differ, {found.missing} rows missing, {found.extra} extra"
    )
