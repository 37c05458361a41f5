"""From single values of many requests to the model's inputs: the operations of ``over_rows``.

A request alone gives the same bits as among others: every operation works on each row by itself.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import elementary, graph, local_time, registered
from edge_core.features.graph import Operation
from edge_core.features.local_time import Clock, Dates
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
    OfTime,
    OneHot,
    OneHotCode,
    OverRows,
    Ratio,
    Registered,
    Scale,
    TimePart,
)
from edge_core.features.request_definition import RequestDefinition

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BLOCK = 8192
"""Rows that are computed together."""
HASH_BYTES = 8
SEPARATOR = "|"


class Numbers(NamedTuple):
    """A column of numbers."""

    values: Float64
    """float64 [n] or [n, columns]; anything where missing."""
    missing: Bool
    """bool [n]."""


class Moments(NamedTuple):
    """A column of moments."""

    values: Int64
    """Microseconds since 1970 UTC, int64 [n]."""
    missing: Bool
    """bool [n]."""


Texts = list[str | None]
Column = Numbers | Moments | Texts
Compute = Callable[[Mapping[str, Column]], Column]


class Rows:
    """The compiled row operations of one definition. Immutable; safe to share among threads."""

    def __init__(self, definition: RequestDefinition) -> None:
        """Compile.

        Raises:
            InvalidBundle: a registered function is not the one that the definition names.
        """
        self._definition = definition
        self._clocks: dict[str | None, Clock] = {None: Clock(None)}
        self._clocks |= {zone.name: Clock(zone) for zone in definition.zones}
        self.dates = {calendar.name: Dates(calendar) for calendar in definition.calendars}
        self._width = len(definition.feature_names)
        self.tables = {table.name: table.values for table in definition.tables}
        ordered = graph.ordered(definition.features, definition.field_names)
        self._steps: list[tuple[Operation, Compute | None]] = [
            (feature, self.compiled(feature) if isinstance(feature, OverRows) else None)
            for feature in ordered
        ]

    def compute(self, given: Mapping[str, Column]) -> Float32:
        """The model's inputs.

        Args:
            given: the request's fields and the features over time, by name, n rows each.

        Returns:
            float32 [n, columns] in the definition's order.

        Raises:
            InvalidInput: a value is missing for which the definition has no default, it is too
                large for float32, or a moment lies beyond its zone's table.
        """
        moments = given[self._definition.request.time]
        assert isinstance(moments, Moments)
        inputs = np.empty((len(moments.values), self._width), np.float32)
        # Blocks of rows stay in the processor's cache.
        for begin in range(0, len(inputs), BLOCK):
            rows = slice(begin, begin + BLOCK)
            part = {name: _part(column, rows) for name, column in given.items()}
            with np.errstate(over="ignore", invalid="ignore"):
                self._compute(part, inputs[rows], begin)
        self.check_finite(inputs)
        return inputs

    def check_finite(self, inputs: Float32) -> None:
        """Refuse inputs float32 [rows, columns] that grew too large, by feature and row."""
        large = ~np.isfinite(inputs)
        if large.any():
            row = int(large.any(axis=1).argmax())
            name = self._definition.feature_names[int(large[row].argmax())]
            raise InvalidInput(
                f"feature {name} is too large for float32 in row {row}; scale or clip what it is "
                "made of"
            )

    def _compute(self, columns: dict[str, Column], inputs: Float32, first: int) -> None:
        """Fill in the inputs of one block, float32 [rows, columns]; its first row's number."""
        for feature, compute in self._steps:
            made = columns[feature.name] if compute is None else compute(columns)
            columns[feature.name] = _defaulted(made, feature.default)
        place = 0
        for feature in self._definition.features:
            if not feature.output:
                continue
            found = columns[feature.name]
            assert isinstance(found, Numbers)
            if found.missing.any():
                raise missing(feature.name, first + int(found.missing.argmax()))
            width = 1 if found.values.ndim == 1 else found.values.shape[1]
            inputs[:, place : place + width] = found.values.reshape(len(inputs), width)
            place += width

    def clock(self, feature: OfTime) -> Clock:
        """Of the zone that a feature names."""
        return self._clocks[feature.zone]

    def compiled(self, feature: OverRows) -> Compute:
        """From columns to a feature's own."""
        match feature:
            case Join():
                return lambda columns: _joined([_texts(columns, name) for name in feature.inputs])
            case Missing():
                return lambda columns: _marks(columns[feature.input])
            case OneHot() | Hash() | Lookup():
                return self._of_text(feature)
            case OfTime():
                return self._of_time(feature)
            case Registered():
                return _of_registered(feature)
            case Ratio() | Difference():
                return _of_two(feature)
            case _:
                return _of_number(feature)

    def _of_text(self, feature: OneHot | Hash | Lookup) -> Compute:
        match feature:
            case OneHot():
                last = len(feature.values)
                places: dict[str | None, int] = {None: -1}
                places |= {value: place for place, value in enumerate(feature.values)}

                def one_hot(columns: Mapping[str, Column]) -> Column:
                    texts = _texts(columns, feature.input)
                    found = map(places.get, texts, itertools.repeat(last))
                    return _indicators(np.fromiter(found, np.int64, len(texts)), last + 1)

                return one_hot
            case Hash():
                return lambda columns: _numbers_of(
                    _texts(columns, feature.input), lambda text: hashed(text, feature.buckets)
                )
            case Lookup():
                table = self.tables[feature.table]
                return lambda columns: _numbers_of(_texts(columns, feature.input), table.get)

    def _of_time(self, feature: OfTime) -> Compute:
        clock = self.clock(feature)
        compute = self._of_local(feature)

        def local(columns: Mapping[str, Column]) -> Column:
            found = columns[feature.input]
            assert isinstance(found, Moments)
            moments = np.where(found.missing, clock.known_us, found.values)
            return Numbers(compute(clock.local(moments)), found.missing)

        return local

    def _of_local(self, feature: OfTime) -> Callable[[Int64], Float64]:
        match feature:
            case Cyclic():
                return lambda local: np.stack(local_time.cyclic(local, feature.period), axis=1)
            case TimePart():
                return lambda local: local_time.part(local, feature.part).astype(np.float64)
            case Holiday():
                return self.dates[feature.calendar].holds
            case DaysToHoliday():
                dates = self.dates[feature.calendar]
                return lambda local: dates.days_to(local, feature.limit)
            case _:
                raise TypeError(f"{type(feature).__name__} is no operation on moments")


def missing(feature: str, row: int) -> InvalidInput:
    """The refusal of a request for which a feature cannot be had."""
    return InvalidInput(
        f"feature {feature} is missing in row {row}, and the definition has no default for it"
    )


def hashed(text: str, buckets: int) -> float:
    """Code of a text; see :class:`~edge_core.features.over_rows.Hash`."""
    digest = hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()
    return float(int.from_bytes(digest, "little") % buckets)


def _of_number(feature: OverRows) -> Compute:
    """An operation on one number."""
    match feature:
        case Field():
            return lambda columns: _numbers(columns, feature.input)
        case Scale():
            return lambda columns: _mapped(
                columns, feature.input, lambda x: (x - feature.offset) * feature.factor
            )
        case Clip():
            return lambda columns: _mapped(
                columns, feature.input, lambda x: np.clip(x, feature.low, feature.high) + 0.0
            )
        case Bucketise():
            edges = np.array(feature.edges)
            return lambda columns: _mapped(
                columns,
                feature.input,
                lambda x: np.searchsorted(edges, x, "right").astype(np.float64),
            )
        case Log1p():
            return lambda columns: _logarithm(_numbers(columns, feature.input))
        case OneHotCode():
            return lambda columns: _of_codes(_numbers(columns, feature.input), feature.codes)
        case _:
            raise TypeError(f"{type(feature).__name__} is no operation on a number")


def _of_two(feature: Ratio | Difference) -> Compute:
    def compute(columns: Mapping[str, Column]) -> Column:
        one = _numbers(columns, feature.input)
        other = _numbers(columns, feature.over if isinstance(feature, Ratio) else feature.minus)
        missing = one.missing | other.missing
        if isinstance(feature, Difference):
            return Numbers(one.values - other.values, missing)
        missing = missing | (other.values == 0)
        return Numbers(one.values / np.where(missing, 1.0, other.values), missing)

    return compute


def _of_registered(feature: Registered) -> Compute:
    function = registered.find(feature)

    def compute(columns: Mapping[str, Column]) -> Column:
        inputs = [_numbers(columns, name) for name in feature.inputs]
        missing = np.logical_or.reduce([entry.missing for entry in inputs])
        values = np.asarray(function(*(np.where(missing, 0.0, e.values) for e in inputs)))
        if values.shape != missing.shape:
            raise InvalidInput(
                f"feature {feature.name}: {feature.function} gave shape {list(values.shape)} for "
                f"{len(missing)} rows"
            )
        values = values.astype(np.float64)
        return Numbers(values, missing | ~np.isfinite(values))

    return compute


def _numbers(columns: Mapping[str, Column], name: str) -> Numbers:
    found = columns[name]
    assert isinstance(found, Numbers)
    return found


def _texts(columns: Mapping[str, Column], name: str) -> Texts:
    found = columns[name]
    assert isinstance(found, list)
    return found


def _mapped(
    columns: Mapping[str, Column], name: str, function: Callable[[Float64], Float64]
) -> Numbers:
    found = _numbers(columns, name)
    return Numbers(function(np.where(found.missing, 0.0, found.values)), found.missing)


def _logarithm(found: Numbers) -> Numbers:
    missing = found.missing | (found.values <= -1.0)
    return Numbers(elementary.log1p(np.where(missing, 0.0, found.values)), missing)


def _of_codes(found: Numbers, codes: int) -> Numbers:
    known = (found.values >= 0) & (found.values < codes)
    places = np.where(known, found.values, codes).astype(np.int64)
    return _indicators(np.where(found.missing, -1, places), codes + 1)


def _indicators(places: Int64, width: int) -> Numbers:
    """A one in each row at its place; a negative place is missing."""
    missing = places < 0
    found = np.zeros((len(places), width))
    there = np.flatnonzero(~missing)
    found[there, places[there]] = 1.0
    return Numbers(found, missing)


def _numbers_of(texts: Texts, function: Callable[[str], float | None]) -> Numbers:
    known = {text: function(text) for text in set(texts) if text is not None}
    found = [known.get(text) if text is not None else None for text in texts]
    missing = np.array([value is None for value in found], np.bool_)
    return Numbers(
        np.array([0.0 if value is None else value for value in found], np.float64), missing
    )


def _joined(texts: list[Texts]) -> Texts:
    return [
        None if None in parts else SEPARATOR.join(part for part in parts if part is not None)
        for parts in zip(*texts, strict=True)
    ]


def _marks(found: Column) -> Numbers:
    if isinstance(found, list):
        missing = np.array([text is None for text in found], np.bool_)
    else:
        missing = found.missing
    return Numbers(missing.astype(np.float64), np.zeros(len(missing), np.bool_))


def _part(column: Column, rows: slice) -> Column:
    if isinstance(column, list):
        return column[rows]
    if isinstance(column, Numbers):
        return Numbers(column.values[rows], column.missing[rows])
    return Moments(column.values[rows], column.missing[rows])


def _defaulted(found: Column, default: float | None) -> Column:
    if default is None or not isinstance(found, Numbers) or not found.missing.any():
        return found
    where = found.missing if found.values.ndim == 1 else found.missing[:, None]
    return Numbers(np.where(where, default, found.values), np.zeros_like(found.missing))
