"""One request's row operations on plain values: the bits of ``rows`` without the cost of arrays.

Python's floats are IEEE 754 doubles, so the same operations in the same order give the same bits.
What needs arrays is computed by ``rows`` on a column of one.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from edge_core.features import elementary, graph
from edge_core.features.graph import Operation
from edge_core.features.local_time import DAY, HOUR, MINUTE, MONDAY, WEEK
from edge_core.features.over_rows import (
    Bucketise,
    Clip,
    Cyclic,
    DaysToHoliday,
    Difference,
    Field,
    Hash,
    Holiday,
    Join,
    Log1p,
    Lookup,
    Missing,
    OfOne,
    OfTime,
    OneHot,
    OneHotCode,
    OverRows,
    Ratio,
    Registered,
    Scale,
    TimePart,
)
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.rows import SEPARATOR, Column, Moments, Numbers, Rows, hashed, missing

Value = float | int | str | tuple[float, ...] | None
"""A number, a moment in microseconds, a text, several columns, or none where missing."""
Values = dict[str, Value]
Operate = Callable[[Mapping[str, Value]], Value]


class Single:
    """The compiled row operations of one definition. Immutable; safe to share among threads."""

    def __init__(self, definition: RequestDefinition, rows: Rows) -> None:
        """Compile; ``rows`` are those of the same definition."""
        self._rows = rows
        self._over_time = [
            (feature.name, float(feature.default))
            for feature in definition.features
            if isinstance(feature, OverTime) and feature.default is not None
        ]
        self._steps = [
            (feature.name, self._operation(feature), _default(feature))
            for feature in graph.ordered(definition.features, definition.field_names)
            if isinstance(feature, OverRows)
        ]
        self._outputs = [
            (feature.name, len(graph.columns(feature)) > 1)
            for feature in definition.features
            if feature.output
        ]

    def compute(self, values: Values, row: int) -> list[float]:
        """The model's inputs of one request, in the definition's order.

        Args:
            values: the request's fields and the features over time, by name; the others are added.
            row: its number, for an error.

        Raises:
            InvalidInput: as :meth:`~edge_core.features.rows.Rows.compute`.
        """
        for name, stands in self._over_time:
            if values[name] is None:
                values[name] = stands
        for name, operation, default in self._steps:
            found = operation(values)
            values[name] = default if found is None else found
        inputs: list[float] = []
        for name, wide in self._outputs:
            found = values[name]
            if found is None:
                raise missing(name, row)
            if wide:
                inputs += found  # type: ignore[arg-type]  # the columns of a wide feature
            else:
                inputs.append(found)  # type: ignore[arg-type]  # a number, as definitions ensure
        return inputs

    def _operation(self, feature: OverRows) -> Operate:
        match feature:
            case Missing():
                return lambda values: float(values[feature.input] is None)
            case Join():
                return lambda values: _joined([values[name] for name in feature.inputs])
            case OneHot() | Hash() | Lookup():
                return self._of_text(feature)
            case OfTime():
                return self._of_time(feature)
            case Ratio() | Difference():
                return _of_two(feature)
            case Registered():
                return self._of_column(feature)
            case _:
                return _of_number(feature)

    def _of_text(self, feature: OneHot | Hash | Lookup) -> Operate:
        find: Callable[[str], Value]
        match feature:
            case OneHot():
                *known, other = _indicators(len(feature.values) + 1)
                columns = dict(zip(feature.values, known, strict=True))
                find = lambda text: columns.get(text, other)  # noqa: E731
            case Hash():
                find = lambda text: hashed(text, feature.buckets)  # noqa: E731
            case Lookup():
                find = self._rows.tables[feature.table].get

        def operate(values: Mapping[str, Value]) -> Value:
            text = values[feature.input]
            return None if text is None else find(cast("str", text))

        return operate

    def _of_time(self, feature: OfTime) -> Operate:
        clock, of_local = self._rows.clock(feature), self._of_local(feature)
        if of_local is None:
            compute = self._of_column(feature)
            # Without a moment, no column says that it is one of moments.
            return lambda values: None if values[feature.input] is None else compute(values)

        def operate(values: Mapping[str, Value]) -> Value:
            moment = values[feature.input]
            return None if moment is None else of_local(clock.local_of(cast("int", moment)))

        return operate

    def _of_local(self, feature: OfTime) -> Callable[[int], Value] | None:
        """None where a calendar of months and years is needed, which numpy has."""
        match feature:
            case Cyclic(period="day"):
                return lambda local: elementary.circle_of(local % DAY, DAY)
            case Cyclic(period="week"):
                return lambda local: elementary.circle_of((local + MONDAY) % WEEK, WEEK)
            case TimePart(part="hour"):
                return lambda local: float(local // HOUR % 24)
            case TimePart(part="weekday"):
                return lambda local: float((local + MONDAY) // DAY % 7)
            case TimePart(part="minute_of_day"):
                return lambda local: float(local // MINUTE % 1440)
            case Holiday():
                return self._rows.dates[feature.calendar].holds_one
            case DaysToHoliday():
                dates, limit = self._rows.dates[feature.calendar], feature.limit
                return lambda local: dates.days_to_one(local, limit)
            case _:
                return None

    def _of_column(self, feature: OverRows) -> Operate:
        """By way of columns with one row."""
        compute, names = self._rows.compiled(feature), graph.needs(feature)

        def operate(values: Mapping[str, Value]) -> Value:
            found = compute({name: _column(values[name]) for name in names})
            assert isinstance(found, Numbers)
            if found.missing[0]:
                return None
            row = found.values[0]
            return tuple(row.tolist()) if found.values.ndim > 1 else float(row)

        return operate


def _of_number(feature: OverRows) -> Operate:
    calculate = _calculation(feature)
    name = cast("OfOne", feature).input

    def operate(values: Mapping[str, Value]) -> Value:
        number = values[name]
        return None if number is None else calculate(cast("float", number))

    return operate


def _calculation(feature: OverRows) -> Callable[[float], Value]:
    match feature:
        case Field():
            return lambda x: x
        case Scale():
            offset, factor = feature.offset, feature.factor
            return lambda x: (x - offset) * factor
        case Clip():
            low, high = feature.low, feature.high
            return lambda x: min(max(x, low), high) + 0.0
        case Bucketise():
            edges = feature.edges
            return lambda x: float(bisect_right(edges, x))
        case Log1p():
            return lambda x: None if x <= -1.0 else elementary.log1p_of(x)
        case OneHotCode():
            *known, other = _indicators(feature.codes + 1)
            return lambda x: known[int(x)] if 0 <= x < len(known) else other
        case _:
            raise TypeError(f"{type(feature).__name__} is no operation on a number")


def _of_two(feature: Ratio | Difference) -> Operate:
    ratio = isinstance(feature, Ratio)
    first, second = graph.needs(feature)

    def operate(values: Mapping[str, Value]) -> Value:
        one, other = values[first], values[second]
        if one is None or other is None:
            return None
        one, other = cast("float", one), cast("float", other)
        if not ratio:
            return one - other
        return one / other if other else None

    return operate


def _joined(texts: Sequence[Value]) -> Value:
    return None if None in texts else SEPARATOR.join(cast("Sequence[str]", texts))


def _indicators(width: int) -> list[tuple[float, ...]]:
    """For each place the columns with a one there."""
    return [tuple(float(column == place) for column in range(width)) for place in range(width)]


def _default(feature: Operation) -> Value:
    if feature.default is None or graph.kind(feature) == "text":
        return None  # a number stands for no text
    # A whole number would be taken for a moment.
    default, width = float(feature.default), len(graph.columns(feature))
    return default if width == 1 else (default,) * width


def _column(value: Value) -> Column:
    """A column of one row; a whole number is a moment."""
    if isinstance(value, str):
        return [value]
    missing = np.array([value is None])
    if isinstance(value, int):
        return Moments(np.array([value], np.int64), missing)
    return Numbers(np.array([0.0 if value is None else value], np.float64), missing)
