"""Columns of fields as they travel: an array of values, or a number's float32 bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from edge_core.errors import InvalidInput
from edge_core.features.columns import Given
from edge_core.features.requests import FieldType, Number

Column: TypeAlias = bytes | list[str | int | float | None]


def decoded(fields: Sequence[FieldType], sent: Given | Mapping[str, Column]) -> Given:
    """Bytes as float32 [n]; everything else is for the evaluator to judge.

    Raises:
        InvalidInput: bytes for what is no number or for parts of one, or a text for a number.
    """
    kinds = {field.name: field for field in fields}
    return {name: _column(name, kinds.get(name), column) for name, column in sent.items()}


def encoded(fields: Given) -> dict[str, Column]:
    """Columns for the way; numpy's numbers as bytes where they are float32 or wider.

    Raises:
        InvalidInput: numpy's moments, of which nanoseconds would go as if they were microseconds.
    """
    return {name: _encoded(name, column) for name, column in fields.items()}


def _column(name: str, field: FieldType | None, column: Any) -> Any:
    if isinstance(column, bytes):
        if field is not None and not isinstance(field, Number):
            raise InvalidInput(f"{name} is sent as bytes, which only numbers may be")
        if len(column) % 4:
            raise InvalidInput(f"{name} has {len(column)} bytes; a number has 4 of them")
        return np.frombuffer(column, "<f4")
    texts = isinstance(column, list) and any(isinstance(value, str) for value in column)
    if isinstance(field, Number) and texts:
        raise InvalidInput(f"{name} is no column of numbers")
    return column


def _encoded(name: str, column: Any) -> Column:
    if isinstance(column, list):
        return [_plain(name, value) for value in column]
    array = np.asarray(column)
    if array.dtype.kind in "mM":
        raise _moments_refused(name)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinity, which is refused by name
            return array.astype("<f4").tobytes()
    listed: list[str | int | float | None] = array.tolist()
    return listed


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        raise _moments_refused(name)
    return value.item() if isinstance(value, np.generic) else value


def _moments_refused(name: str) -> InvalidInput:
    return InvalidInput(f"{name} holds numpy's moments; send whole microseconds since 1970")
