"""Logs of events and requests, and their bytes: golden rows and samples carry them."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features import columns
from edge_core.features.columns import Given
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Number

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Events(NamedTuple):
    """Events of one stream, in any order."""

    times_us: npt.ArrayLike
    """Event times, int64 [n]."""
    sequence: npt.ArrayLike
    """Sequence numbers: with the time they order a stream's events, and tell repeated ones."""
    arrived_us: npt.ArrayLike
    """When each one came, int64 [n]."""
    fields: Given

    def only(self, places: Int64) -> "Events":
        """Some of them."""
        times, sequence, arrived = (np.asarray(part, np.int64)[places] for part in self[:3])
        return Events(times, sequence, arrived, columns.taken(self.fields, places))


class Log(NamedTuple):
    """What came: events by stream, and requests as a column for each field."""

    events: Mapping[str, Events]
    request: Given


Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    times_us: list[Whole]
    sequence: list[Whole]
    arrived_us: list[Whole]
    fields: dict[str, list[Any]]


class _Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    events: dict[str, _Events]
    request: dict[str, list[Any]]


def pack(log: Log) -> bytes:
    """As bytes; columns may be arrays or lists."""
    events = {
        name: _Events(
            _listed(given.times_us),
            _listed(given.sequence),
            _listed(given.arrived_us),
            _columns(given.fields),
        )
        for name, given in log.events.items()
    }
    return msgspec.msgpack.encode(_Log(events, _columns(log.request)))


def unpack(data: bytes) -> Log:
    """Read what :func:`pack` made; raise :class:`InvalidInput` where it is damaged."""
    try:
        found = msgspec.msgpack.decode(data, type=_Log)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"the log of events and requests is damaged: {quoted(error)}") from error
    events = {
        name: Events(given.times_us, given.sequence, given.arrived_us, given.fields)
        for name, given in found.events.items()
    }
    return Log(events, found.request)


def numbers(definition: RequestDefinition, request: Given) -> Float32:
    """The requests' numbers as the definition rounds them, for statistics.

    Returns:
        float32 [n, 1, numbers], in the order of ``definition.input_names``; NaN where missing.

    Raises:
        InvalidInput: unknown or missing fields, or unfit values.
    """
    checked = columns.check(definition.request.fields, request)
    found = [
        np.where(checked[field.name].missing, np.nan, checked[field.name].steps * field.lsb)
        for field in definition.request.fields
        if isinstance(field, Number)
    ]
    rows = len(checked[definition.request.time].steps)
    stacked = np.stack(found, axis=1) if found else np.empty((rows, 0))
    return stacked.astype(np.float32)[:, None, :]


def _columns(given: Given) -> dict[str, list[Any]]:
    return {name: _listed(column) for name, column in given.items()}


def _listed(column: Any) -> list[Any]:
    if not isinstance(column, list):
        found: list[Any] = np.asarray(column).tolist()
        return found
    return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    # JSON can hold whole numbers that msgpack cannot; a number is rounded like that in any case.
    return value if type(value) is not int or -(2**63) <= value < 2**64 else float(value)
