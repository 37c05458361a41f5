"""Frames of what an application asks: the same for both clients."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.serving.explanation import By
from edge_agent.serving.fields import encoded
from edge_agent.serving.frames import Ask, Explain, Observe, Predict, PredictShared, Push
from edge_agent.shared_windows import SharedWindows
from edge_core.errors import InvalidInput
from edge_core.features.columns import Given


class Terms(NamedTuple):
    """What goes with each request: which model, and until when an answer is worth having."""

    model: str
    timeout: float

    def fields(self) -> dict[str, Any]:
        """Fields of a request that is sent now.

        The deadline is the moment at which the client stops waiting: the agent does no work for
        nobody.
        """
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return {"model": self.model, "deadline_us": now_us + int(self.timeout * 1e6)}


def predict(
    request_id: int, samples: npt.ArrayLike, slices: dict[str, str] | None, terms: Terms
) -> Predict:
    """Answer whole raw windows; raise :class:`InvalidInput`."""
    array = np.ascontiguousarray(samples, dtype="<f4")
    if array.ndim != 3:
        raise InvalidInput(f"samples have shape {list(array.shape)}; needed are three axes")
    batch, count, inputs = array.shape
    return Predict(
        id=request_id,
        shape=(batch, count, inputs),
        samples=array.tobytes(),
        slices=slices or {},
        **terms.fields(),
    )


def push(
    request_id: int,
    stream: str,
    times_us: npt.ArrayLike,
    samples: npt.ArrayLike,
    slices: dict[str, str] | None,
    terms: Terms,
) -> Push:
    """Feed a sensor stream."""
    return Push(
        id=request_id,
        stream=stream,
        times_us=np.ascontiguousarray(times_us, dtype="<i8").tobytes(),
        samples=np.ascontiguousarray(samples, dtype="<f4").tobytes(),
        slices=slices or {},
        **terms.fields(),
    )


def observe(
    request_id: int,
    stream: str,
    times_us: npt.ArrayLike,
    sequence: npt.ArrayLike,
    fields: Given,
    arrived_us: npt.ArrayLike | None,
    terms: Terms,
) -> Observe:
    """Remember events; raise :class:`InvalidInput`."""
    return Observe(
        id=request_id,
        stream=stream,
        times_us=_moments("times", times_us),
        sequence=_moments("sequence numbers", sequence),
        fields=encoded(fields),
        arrived_us=None if arrived_us is None else _moments("arrivals", arrived_us),
        **terms.fields(),
    )


def predict_shared(
    request_id: int, windows: SharedWindows, slices: dict[str, str] | None, terms: Terms
) -> PredictShared:
    """Answer windows that lie in shared memory."""
    return PredictShared(
        id=request_id,
        region=windows.region,
        offset=0,
        shape=windows.shape,
        slices=slices or {},
        **terms.fields(),
    )


def ask(request_id: int, fields: Given, slices: dict[str, str] | None, terms: Terms) -> Ask:
    """Answer requests."""
    return Ask(id=request_id, fields=encoded(fields), slices=slices or {}, **terms.fields())


def explain(
    request_id: int, rows: npt.ArrayLike | Given, by: By | None, per_class: bool, terms: Terms
) -> Explain:
    """Explain windows or requests; raise :class:`InvalidInput`."""
    if isinstance(rows, Mapping):
        return Explain(
            id=request_id,
            shape=None,
            samples=b"",
            fields=encoded(rows),
            by=by,
            per_class=per_class,
            **terms.fields(),
        )
    windows = predict(request_id, rows, None, terms)
    return Explain(
        id=request_id,
        shape=windows.shape,
        samples=windows.samples,
        fields={},
        by=by,
        per_class=per_class,
        **terms.fields(),
    )


def _moments(what: str, values: npt.ArrayLike) -> bytes:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise InvalidInput(f"{what} are no whole numbers")
    return array.astype("<i8").tobytes()
