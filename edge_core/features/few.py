"""A few rows of requests or events as plain values: what ``columns`` checks, without arrays.

An array costs microseconds whatever it holds, which a single row cannot spread. Rows that are in
any way unusual are left to ``columns``, which refuses them or says what they mean.
"""

import operator
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_core.features.columns import MAX_TIME_US, Given, unicode
from edge_core.features.requests import MAX_TEXT, Category, FieldType, Number, Time

MOST = 8
"""Rows from which on arrays are quicker."""
EXACT = 2**53
"""Whole numbers up to it are exact in float64."""

Plain = int | str | None
"""A number in multiples of lsb, a moment in microseconds, a text, or none."""
Read = Callable[[object], Plain]

_FLOAT = struct.Struct("<f")


class Few:
    """Reads few rows of some fields."""

    def __init__(self, fields: Sequence[FieldType]) -> None:
        self._reads = [(field.name, _read(field)) for field in fields]

    def rows(self, given: Given) -> list[dict[str, Plain]] | None:
        """Values by field of each row; none where there are many rows, or one is unusual."""
        if len(given) != len(self._reads) or not given:
            return None  # without a column nothing says how many rows there are
        try:
            alone = self._alone(given)
            return self._some(given) if alone is None else [alone]
        except (_Unusual, KeyError, ValueError):
            return None

    def _alone(self, given: Given) -> dict[str, Plain] | None:
        """The only row; none where there is not exactly one."""
        row: dict[str, Plain] = {}
        for name, read in self._reads:
            column = given[name]
            listed = column if type(column) is list else _listed(column)
            if len(listed) != 1:
                return None
            row[name] = read(listed[0])
        return row

    def _some(self, given: Given) -> list[dict[str, Plain]]:
        columns = [_listed(given[name]) for name, _ in self._reads]
        found: list[dict[str, Plain]] = [{} for _ in columns[0]]
        for (name, read), column in zip(self._reads, columns, strict=True):
            for row, value in zip(found, column, strict=True):
                row[name] = read(value)
        return found


def _listed(column: npt.ArrayLike | Sequence[object]) -> list[object]:
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "mM":  # of nanoseconds numpy would make plain numbers
            raise _Unusual
        column = column.tolist()
    if not isinstance(column, list) or len(column) > MOST:
        raise _Unusual
    return column


def getter(names: Sequence[str]) -> Callable[[Mapping[str, Plain]], tuple[Plain, ...]]:
    """Takes some of a row's values, in order."""
    match names:
        case []:
            return lambda _: ()
        case [name]:
            return lambda row: (row[name],)
        case _:
            return operator.itemgetter(*names)


class _Unusual(Exception):
    """Not for this module to judge."""


def _read(field: FieldType) -> Read:
    match field:
        case Number():
            return _number(field)
        case Category():
            return _text(field)
        case Time():
            return _moment(field)


def _number(field: Number) -> Read:
    keeps, lsb = field.null_policy == "keep", field.lsb
    low, high = round(field.low / lsb), round(field.high / lsb)

    def read(value: object) -> Plain:
        if type(value) is int:
            if not -EXACT <= value <= EXACT:
                raise _Unusual
            value = float(value)
        if value is None or value != value:
            if keeps:
                return None
            raise _Unusual
        if type(value) is not float:
            raise _Unusual
        try:
            rounded = _FLOAT.unpack(_FLOAT.pack(value))[0]
            steps = round(rounded / lsb)
        except OverflowError:
            raise _Unusual from None
        return low if steps < low else min(steps, high)

    return read


def _text(field: Category) -> Read:
    keeps = field.null_policy == "keep"

    def read(value: object) -> Plain:
        if value is None and keeps:
            return None
        if type(value) is not str or len(value) > MAX_TEXT or not unicode(value):
            raise _Unusual
        return value

    return read


def _moment(field: Time) -> Read:
    keeps = field.null_policy == "keep"

    def read(value: object) -> Plain:
        if value is None and keeps:
            return None
        if type(value) is not int or not -MAX_TIME_US < value < MAX_TIME_US:
            raise _Unusual
        return value

    return read
