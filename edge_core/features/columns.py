"""Columns of requests and events as applications send them, checked against their fields."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features.requests import MAX_TEXT, Category, FieldType, Number, Time

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

MAX_TIME_US = 2**62

Given = Mapping[str, npt.ArrayLike | Sequence[object]]
"""A column for each field by name, of equal lengths; none or NaN where a value is missing."""


class Checked(NamedTuple):
    """One field's column."""

    steps: Int64
    """A number in multiples of lsb, a moment in microseconds; 0 where missing, and for texts."""
    texts: list[str | None]
    """A category's values; empty for the others."""
    missing: Bool


def check(fields: Sequence[FieldType], given: Given) -> dict[str, Checked]:
    """Check all columns.

    Raises:
        InvalidInput: a field is missing or unknown, columns differ in length, or a value is of
            another type, missing where that is refused, or not finite.
    """
    names = [field.name for field in fields]
    if lacking := [name for name in names if name not in given]:
        raise InvalidInput(f"fields are missing: {', '.join(lacking)}")
    if unknown := [str(name)[:64] for name in given if name not in names]:
        raise InvalidInput(f"unknown fields: {', '.join(unknown)}; known are {', '.join(names)}")
    found = {field.name: _column(field, given[field.name]) for field in fields}
    lengths = {len(column.missing) for column in found.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"columns have different lengths: {', '.join(map(str, lengths))}")
    for field in fields:
        if field.null_policy == "refuse" and found[field.name].missing.any():
            row = int(found[field.name].missing.argmax())
            raise InvalidInput(f"{field.name} is missing in row {row}; the definition refuses that")
    return found


def taken(given: Given, places: Int64) -> dict[str, Any]:
    """Some rows of every column, by place."""
    return {
        name: [column[place] for place in places.tolist()]
        if isinstance(column, list)
        else np.asarray(column)[places]
        for name, column in given.items()
    }


def _column(field: FieldType, given: npt.ArrayLike | Sequence[object]) -> Checked:
    match field:
        case Number():
            return _numbers(field, given)
        case Category():
            return _texts(field, given)
        case Time():
            return _moments(field, given)


def _numbers(field: Number, given: npt.ArrayLike | Sequence[object]) -> Checked:
    """Round to float32 first, so that every source of the same values agrees."""
    try:
        listed = given if isinstance(given, list) else np.asarray(given)
        if isinstance(listed, np.ndarray) and listed.dtype.kind in "mM":
            raise TypeError("moments and spans are no numbers")
        if isinstance(listed, np.ndarray) and listed.dtype.kind in "iu":
            listed = listed.astype(np.float64)  # as a list's whole numbers are taken
        with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is one, too
            values = np.asarray(listed, dtype=np.float32)
            wide = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{field.name} is no column of numbers") from error
    _flat(field.name, values)
    if np.isinf(values).any():
        raise InvalidInput(f"{field.name} is infinite, or too large for float32")
    missing = np.isnan(values)
    steps = np.where(missing, 0.0, wide) / field.lsb
    low, high = round(field.low / field.lsb), round(field.high / field.lsb)
    whole = np.clip(np.rint(steps), low, high).astype(np.int64)
    return Checked(np.where(missing, 0, whole), [], missing)


def _texts(field: Category, given: npt.ArrayLike | Sequence[object]) -> Checked:
    listed = given if isinstance(given, list) else np.asarray(given, dtype=object).tolist()
    try:
        different = set(listed)
    except TypeError as error:
        raise InvalidInput(f"{field.name} is no column of texts") from error
    for value in different - {None}:
        if not isinstance(value, str):
            raise InvalidInput(f"{field.name} is no column of texts: {str(value)[:64]!r}")
        if len(value) > MAX_TEXT:
            raise InvalidInput(f"{field.name} has a text of more than {MAX_TEXT} characters")
        if not unicode(value):
            raise InvalidInput(f"{field.name} has a text with half a character (a lone surrogate)")
    missing = np.zeros(len(listed), np.bool_)
    if None in different:
        missing[:] = [value is None for value in listed]
    return Checked(np.zeros(len(listed), np.int64), listed, missing)


def unicode(text: str) -> bool:
    """Whether a text can be written: JSON can name halves of characters that nothing can."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _moments(field: Time, given: npt.ArrayLike | Sequence[object]) -> Checked:
    try:
        values = np.asarray(given)
    except ValueError as error:
        raise InvalidInput(f"{field.name} is no flat column of moments") from error
    _flat(field.name, values)
    if values.dtype == object:
        missing = np.array([value is None for value in values], np.bool_)
        values = np.array([0 if value is None else value for value in values])
    else:
        missing = np.zeros(values.size, np.bool_)
    if values.size and values.dtype.kind not in "iu":
        raise InvalidInput(f"{field.name} is no column of whole microseconds since 1970")
    if values.size and not (values.min() > -MAX_TIME_US and values.max() < MAX_TIME_US):
        raise InvalidInput(f"{field.name} is beyond 2**62 microseconds")
    return Checked(values.astype(np.int64), [], missing)


def _flat(name: str, values: npt.NDArray[np.generic]) -> None:
    if values.ndim != 1:
        raise InvalidInput(f"{name} has shape {list(values.shape)}; a flat column is needed")
