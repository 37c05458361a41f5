"""Compares new values of features with old ones, row by row, in constant memory and any order.

Rows of both sides are dealt out to files by a hash of their key, so that those of one key meet;
then file by file they are joined in memory.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters.history import dealing
from converters.history.dealing import Side
from edge_core.errors import InvalidConfiguration, InvalidInput

BUCKET_BYTES = 32 * 2**20
"""About what the rows of one file take in memory, both sides together."""
MAX_BUCKETS = 512
"""Files that are open at once; beyond 16 GiB of values their rows take more memory each."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class FeatureDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over all rows that both sides have."""

    feature: str
    compared: int
    changed: int
    """Values that are not equal; a missing one equals another missing one."""
    share: float
    """Of the compared ones."""
    largest: float
    """Largest absolute difference, of values that are there on both sides."""
    mean_before: float | None
    """Of the compared rows' values that are there."""
    mean_after: float | None


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """New values beside old ones."""

    key: list[str]
    rows: int
    """Rows that both sides have."""
    missing: int
    """Rows that only the old side has."""
    extra: int
    """Rows that only the new side has."""
    only_before: list[str]
    """Columns of numbers that only the old side has."""
    only_after: list[str]
    """Features that only the new side has."""
    features: list[FeatureDiff]


def compare(
    new: Path,
    old: Path,
    names: Sequence[str],
    identity: Sequence[str],
    key: Sequence[str],
    scratch: Path,
) -> Diff:
    """Compare the parts of an output with old values.

    Args:
        new: folder of the parts.
        old: a Parquet file, or a folder of such files.
        names: of the features.
        identity: the new side's other columns.
        key: columns that say which rows belong together; they stand on both sides.
        scratch: folder for files on the way; it is removed again.

    Raises:
        InvalidConfiguration: nothing to compare, or the key does not fit.
        InvalidInput: the old values are damaged, or a key stands twice.
    """
    try:
        return _compare(
            Side(new, "the new values"), Side(old, str(old)), names, identity, key, scratch
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compare(
    new: Side,
    old: Side,
    names: Sequence[str],
    identity: Sequence[str],
    key: Sequence[str],
    scratch: Path,
) -> Diff:
    if odd := [name for name in key if name in names or key.count(name) > 1]:
        raise InvalidConfiguration(
            f"--key {','.join(key)}: {odd[0]} is "
            f"{'a feature, whose values are compared' if odd[0] in names else 'named twice'}"
        )
    for side in (new, old):
        side.check(key, names)
    both = [name for name in names if name in old.columns]
    if not both:
        raise InvalidConfiguration(f"{old.name} has none of the features, such as {names[0]}")
    old.check_numbers(both)
    size = (new.rows + old.rows) * (len(both) * 4 + 64)
    buckets = max(1, min(MAX_BUCKETS, -(-size // BUCKET_BYTES)))
    for place, side in enumerate((new, old)):
        side.deal(scratch / str(place), key, both, buckets, new.schema)
    found = _Sums(both)
    for bucket in range(buckets):
        after, before = (dealing.read(scratch / str(place) / str(bucket)) for place in (0, 1))
        found.take(after, before, key, old.name)
    left = set(old.columns) - set(names) - set(identity) - set(key)
    return found.diff(
        key,
        sorted(name for name in left if old.is_number(name)),
        [name for name in names if name not in old.columns],
    )


class _Sums:
    """What adds up over buckets."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._rows = self._missing = self._extra = 0
        self._changed = np.zeros(len(names), np.int64)
        self._largest = np.zeros(len(names))
        self._sums = np.zeros((2, len(names)))
        self._there = np.zeros((2, len(names)), np.int64)

    def take(self, after: Any, before: Any, key: Sequence[str], source: str) -> None:
        """Join the rows of one bucket."""
        codes = _codes(after, before, key)
        mine, theirs = codes[: after.num_rows], codes[after.num_rows :]
        for side, found, table in (("the new values", mine, after), (source, theirs, before)):
            values, first, counts = np.unique(found, return_index=True, return_counts=True)
            if len(values) < len(found):
                row = int(first[counts > 1][0])
                said = ", ".join(f"{n} {table.column(n)[row].as_py()}" for n in key)
                raise InvalidInput(
                    f"{side}: {said} stands twice; name more columns with --key to tell rows apart"
                )
        _, left, right = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
        self._rows += len(left)
        self._extra += len(mine) - len(left)
        self._missing += len(theirs) - len(right)
        for place, name in enumerate(self._names):
            self._compare(place, _values(after, name)[left], _values(before, name)[right])

    def _compare(self, place: int, after: Float64, before: Float64) -> None:
        gone = np.isnan(after), np.isnan(before)
        there = ~(gone[0] | gone[1])
        self._changed[place] += int(((after != before) & ~(gone[0] & gone[1])).sum())
        with np.errstate(invalid="ignore"):
            apart = np.abs(after[there] - before[there])
        self._largest[place] = max(self._largest[place], float(np.nanmax(apart, initial=0.0)))
        for side, values in enumerate((before, after)):
            self._sums[side, place] += float(np.nansum(values))
            self._there[side, place] += int((~np.isnan(values)).sum())

    def diff(self, key: Sequence[str], only_before: list[str], only_after: list[str]) -> Diff:
        """All of it."""
        return Diff(
            key=list(key),
            rows=self._rows,
            missing=self._missing,
            extra=self._extra,
            only_before=only_before,
            only_after=only_after,
            features=[
                FeatureDiff(
                    feature=name,
                    compared=self._rows,
                    changed=int(self._changed[place]),
                    share=int(self._changed[place]) / max(self._rows, 1),
                    largest=float(self._largest[place]),
                    mean_before=self._mean(0, place),
                    mean_after=self._mean(1, place),
                )
                for place, name in enumerate(self._names)
            ],
        )

    def _mean(self, side: int, place: int) -> float | None:
        count = int(self._there[side, place])
        return float(self._sums[side, place]) / count if count else None


def show(console: Console, found: Diff) -> None:
    """A line for each feature that changed, and the sum."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("feature", "compared", "changed", "share", "largest", "before", "after"):
        table.add_column(column, justify="left" if column == "feature" else "right")
    for entry in found.features:
        if entry.changed:
            means = (
                "-" if m is None else f"{m:.6g}" for m in (entry.mean_before, entry.mean_after)
            )
            table.add_row(
                Text(entry.feature),
                f"{entry.compared:,}",
                f"{entry.changed:,}",
                f"{entry.share:.2%}",
                f"{entry.largest:.6g}",
                *means,
            )
    if table.row_count:
        console.print(table)
    for said, columns in (
        ("only in the old values", found.only_before),
        ("only in the new values", found.only_after),
    ):
        if columns:
            console.print(f"{said}: {', '.join(columns)}", markup=False)
    changed = sum(bool(entry.changed) for entry in found.features)
    console.print(
        f"{found.rows:,} rows compared by {', '.join(found.key)}: {changed} of "
        f"{len(found.features)} features changed; {found.missing:,} old rows are missing, "
        f"{found.extra:,} are new",
        markup=False,
    )


def _codes(after: Any, before: Any, key: Sequence[str]) -> Int64:
    """One number for each different key of both sides together."""
    import pyarrow as pa

    codes = np.zeros(after.num_rows + before.num_rows, np.int64)
    for name in key:
        both = pa.chunked_array(
            [*after.column(name).chunks, *before.column(name).chunks], after.schema.field(name).type
        )
        coded = both.combine_chunks().dictionary_encode(null_encoding="encode")
        indices = np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)
        _, codes = np.unique(codes * (len(coded.dictionary) + 1) + indices, return_inverse=True)
    return np.asarray(codes, np.int64)


def _values(table: Any, name: str) -> Float64:
    return np.asarray(table.column(name).to_numpy(), np.float64)
