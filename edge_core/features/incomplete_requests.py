"""Features of requests in which fields are missing that their definition refuses.

The model never sees them. The baseline can: features that do not need the missing fields are
computed as ever, the others are NaN, which the baseline takes for its mean.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput
from edge_core.features import graph
from edge_core.features.columns import Given
from edge_core.features.over_rows import Lookup
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, FieldType, Number, Time

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


class Completed(NamedTuple):
    """A request with stand-ins where values are missing."""

    request: dict[str, Any]
    missing: dict[str, Bool]
    """By field, bool [rows]; only fields of which some are."""

    @property
    def rows(self) -> Bool:
        """Which rows lack something, bool [rows]."""
        found: Bool = np.logical_or.reduce(list(self.missing.values()))
        return found


class Completion:
    """What of a definition depends on which field of a request."""

    def __init__(self, definition: RequestDefinition) -> None:
        self._definition = definition
        self._fields = {
            field.name: field
            for field in definition.request.fields
            if field.null_policy == "refuse" and field.name != definition.request.time
        }
        self._columns = _columns_by_field(definition)
        self._stand_ins = {
            name: _stand_in(definition, field) for name, field in self._fields.items()
        }

    def completed(self, given: Given, rows: int, now_us: int) -> Completed | None:
        """Put stand-ins where values are missing; none where nothing is.

        Args:
            given: the request; a field that is not there at all is missing in every row.
            rows: of the request.
            now_us: stands for a missing moment.

        Raises:
            InvalidInput: a field is no column of as many rows.
        """
        request, missing = dict(given), {}
        for name, field in self._fields.items():
            column = listed(name, given[name], rows) if name in given else [None] * rows
            lacking = np.array([_lacks(value) for value in column], np.bool_)
            if lacking.any():
                stand_in = now_us if isinstance(field, Time) else self._stand_ins[name]
                request[name] = [
                    stand_in if lacks else value
                    for value, lacks in zip(column, lacking.tolist(), strict=True)
                ]
                missing[name] = lacking
        return Completed(request, missing) if missing else None

    def blank(self, features: Float32, numbers: Float32, missing: dict[str, Bool]) -> None:
        """Make NaN what stand-ins gave.

        Args:
            features: float32 [rows, columns], changed in place.
            numbers: float32 [rows, 1, numbers], changed in place.
            missing: as :meth:`completed` found it.
        """
        names = self._definition.input_names
        for name, rows in missing.items():
            columns = np.array(self._columns.get(name, []), np.intp)
            features[np.ix_(np.flatnonzero(rows), columns)] = np.nan
            if name in names:
                numbers[rows, 0, names.index(name)] = np.nan


def listed(name: str, column: npt.ArrayLike | Sequence[object], rows: int) -> list[Any]:
    """A column as a list of ``rows`` values; raise :class:`InvalidInput` where it is none."""
    values = column if isinstance(column, list) else np.asarray(column, dtype=object).tolist()
    if not isinstance(values, list) or len(values) != rows:
        raise InvalidInput(f"{name} is no flat column of {rows} values")
    return values


def _lacks(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _stand_in(definition: RequestDefinition, field: FieldType) -> object:
    """A value that features can be computed from: none may be left out without a default."""
    match field:
        case Number():
            return min(max(1.0, field.low), field.high)
        case Category():
            tables = {table.name: table for table in definition.tables}
            for feature in definition.features:
                if isinstance(feature, Lookup) and feature.input == field.name:
                    return next(iter(tables[feature.table].values), "")
            return ""
        case Time():
            return 0


def _columns_by_field(definition: RequestDefinition) -> dict[str, list[int]]:
    """Columns of features that need a field, directly or through other features."""
    by_name = {feature.name: feature for feature in definition.features}

    def fields_of(name: str) -> set[str]:
        feature = by_name.get(name)
        if feature is None:
            return {name}
        if isinstance(feature, OverTime):
            return set(feature.by.values())
        return set().union(*map(fields_of, graph.needs(feature)))

    found: dict[str, list[int]] = {}
    start = 0
    for feature in definition.features:
        if not feature.output:
            continue
        width = len(graph.columns(feature))
        for field in fields_of(feature.name):
            found.setdefault(field, []).extend(range(start, start + width))
        start += width
    return found
