"""What may wait for the inference thread: the right kind, shape and size.

Values are looked at by the inference thread.
"""

from collections.abc import Sized
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.serving import explaining
from edge_agent.serving.asking import (
    Explain,
    NewEvents,
    Occlusion,
    Remember,
    Requests,
    SensorSamples,
    WholeWindows,
    Work,
)
from edge_agent.serving.fields import decoded
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.window_memory import MAX_STREAM_NAME
from edge_core.errors import InvalidInput
from edge_core.features.columns import Given
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition

MAX_ROWS_PER_REQUEST = 1024
MAX_EVENTS_PER_REQUEST = 4096
EVENTS_LIKE_A_ROW = 16
"""Taking so many events costs about as much as answering one row."""


class Admitted(NamedTuple):
    """Work, and what it costs in rows."""

    work: Work | Explain | Remember
    rows: int
    """None for explanations: they wait beside live requests, and are bounded there."""


def windows(release: LoadedRelease, samples: npt.ArrayLike) -> Admitted:
    """Whole windows; raise :class:`InvalidInput`."""
    raw = _floats(samples)
    check_shape(release, raw.shape)
    return Admitted(WholeWindows(raw), len(raw))


def check_shape(release: LoadedRelease, shape: tuple[int, ...]) -> None:
    """Raise :class:`InvalidInput` where whole windows have another shape, or are too many."""
    if shape[1:] != release.window_shape or len(shape) != 3:
        definition = _of_windows(release)
        inputs = definition.input_names
        raise InvalidInput(
            f"samples have shape {list(shape)}; needed is [batch, "
            f"{definition.window.samples}, {len(inputs)}] with the inputs {', '.join(inputs)}"
        )
    _few(shape[0], "windows")


def samples(
    release: LoadedRelease, stream: str, times_us: npt.ArrayLike, samples: npt.ArrayLike
) -> Admitted:
    """Samples of a sensor; raise :class:`InvalidInput`."""
    definition = _of_windows(release)
    if not 1 <= len(stream) <= MAX_STREAM_NAME:
        raise InvalidInput(f"a stream's name has 1 to {MAX_STREAM_NAME} characters")
    raw = _floats(samples)
    rows = 1 + raw.shape[0] // definition.window.hop if raw.ndim else 1
    if rows > MAX_ROWS_PER_REQUEST:
        raise InvalidInput(
            f"{len(raw)} samples can complete {rows} windows; send fewer in one request, for "
            f"at most {MAX_ROWS_PER_REQUEST} windows"
        )
    return Admitted(SensorSamples(stream, times_us, raw), rows)


def events(
    release: LoadedRelease,
    stream: str,
    times_us: npt.ArrayLike,
    sequence: npt.ArrayLike,
    fields: Given,
    arrived_us: npt.ArrayLike | None,
) -> Admitted:
    """Events of a stream; raise :class:`InvalidInput`."""
    streams = {known.name: known for known in _of_requests(release).streams}
    if stream not in streams:
        known = ", ".join(streams) or "none"
        raise InvalidInput(f"unknown stream {stream[:64]}; the definition has {known}")
    fields = decoded(streams[stream].fields, fields)
    count = max(_length(times_us), _length(sequence), *map(_length, fields.values()))
    if not 1 <= count <= MAX_EVENTS_PER_REQUEST:
        raise InvalidInput(f"{count} events in one go; send 1 to {MAX_EVENTS_PER_REQUEST}")
    work = NewEvents(stream, times_us, sequence, fields, arrived_us)
    return Admitted(work, 1 + count // EVENTS_LIKE_A_ROW)


def requests(release: LoadedRelease, fields: Given) -> Admitted:
    """Requests, a column for each field; raise :class:`InvalidInput`."""
    fields = decoded(_of_requests(release).request.fields, fields)
    rows = max(map(_length, fields.values()), default=1)
    _few(rows, "requests")
    return Admitted(Requests(fields, rows), rows)


def explanation(release: LoadedRelease, of: Admitted, how: Occlusion) -> Admitted:
    """An explanation of windows or requests that would be admitted.

    Raises:
        InvalidInput: the model does not take what is to be occluded, or there are too many rows.
    """
    assert isinstance(of.work, WholeWindows | Requests)
    _, names = explaining.occluded(release, how.by)
    rows = of.rows * (1 + len(names))
    if rows > MAX_ROWS_PER_REQUEST and of.rows > 1:
        most = max(1, MAX_ROWS_PER_REQUEST // (1 + len(names)))
        raise InvalidInput(
            f"{of.rows} rows in one explanation; each is answered {1 + len(names)} times, so send "
            f"1 to {most}"
        )
    return Admitted(Explain(of.work, how, rows), 0)


def _of_windows(release: LoadedRelease) -> WindowDefinition:
    if not isinstance(release.definition, WindowDefinition):
        raise InvalidInput(
            f"{release.ref.name} answers requests, not sensor windows: use ask and observe"
        )
    return release.definition


def _of_requests(release: LoadedRelease) -> RequestDefinition:
    if not isinstance(release.definition, RequestDefinition):
        raise InvalidInput(
            f"{release.ref.name} answers sensor windows, not requests: use predict and push"
        )
    return release.definition


def _few(rows: int, what: str) -> None:
    if not 1 <= rows <= MAX_ROWS_PER_REQUEST:
        raise InvalidInput(f"{rows} {what} in one request; send 1 to {MAX_ROWS_PER_REQUEST}")


def _length(column: object) -> int:
    try:
        return len(column) if isinstance(column, Sized) else 1
    except TypeError:  # an array without axes
        return 1


def _floats(samples: npt.ArrayLike) -> Float32:
    if isinstance(samples, np.ndarray) and samples.dtype == np.float32:
        return samples
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is refused by name later
            return np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"samples are not an array of numbers: {error}") from error
