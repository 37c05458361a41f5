"""Clients for applications on the device: one that blocks, one for asyncio."""

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from edge_agent.serving import frames
from edge_agent.serving.fields import encoded
from edge_agent.serving.frames import (
    Answers,
    Ask,
    Attach,
    Detach,
    Failure,
    Feedback,
    Joined,
    Noted,
    Observe,
    Predict,
    PredictShared,
    Push,
    Status,
    StatusAnswer,
)
from edge_agent.serving.predictions import Prediction
from edge_agent.shared_windows import SharedWindows
from edge_core import errors
from edge_core.errors import InvalidInput, InvalidMessage, SerinusError, Unavailable
from edge_core.features.columns import Given


class _Terms(NamedTuple):
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


def _predict(
    request_id: int, samples: npt.ArrayLike, slices: dict[str, str] | None, terms: _Terms
) -> Predict:
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


def _push(
    request_id: int,
    stream: str,
    times_us: npt.ArrayLike,
    samples: npt.ArrayLike,
    slices: dict[str, str] | None,
    terms: _Terms,
) -> Push:
    return Push(
        id=request_id,
        stream=stream,
        times_us=np.ascontiguousarray(times_us, dtype="<i8").tobytes(),
        samples=np.ascontiguousarray(samples, dtype="<f4").tobytes(),
        slices=slices or {},
        **terms.fields(),
    )


def _observe(
    request_id: int,
    stream: str,
    times_us: npt.ArrayLike,
    sequence: npt.ArrayLike,
    fields: Given,
    arrived_us: npt.ArrayLike | None,
    terms: _Terms,
) -> Observe:
    return Observe(
        id=request_id,
        stream=stream,
        times_us=_moments("times", times_us),
        sequence=_moments("sequence numbers", sequence),
        fields=encoded(fields),
        arrived_us=None if arrived_us is None else _moments("arrivals", arrived_us),
        **terms.fields(),
    )


def _ask(request_id: int, fields: Given, slices: dict[str, str] | None, terms: _Terms) -> Ask:
    return Ask(id=request_id, fields=encoded(fields), slices=slices or {}, **terms.fields())


def _moments(what: str, values: npt.ArrayLike) -> bytes:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise InvalidInput(f"{what} are no whole numbers")
    return array.astype("<i8").tobytes()


def _unavailable(path: Path, error: OSError) -> Unavailable:
    reason = error.strerror or str(error) or type(error).__name__
    return Unavailable(
        f"no agent answers on {path} ({reason}); start it with 'serinus-agent run --config FILE'"
    )


def _late(path: Path, timeout: float) -> Unavailable:
    return Unavailable(f"no answer from {path} within {timeout:g} s; connect again or wait longer")


def _refusal(failure: Failure) -> SerinusError:
    """Make the error again that the agent raised."""
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, SerinusError):
        return kind(failure.message)
    return SerinusError(failure.message)


def _checked(response: frames.Response) -> frames.Response:
    if isinstance(response, Failure):
        raise _refusal(response)
    return response


def _predictions(response: frames.Response) -> list[Prediction]:
    checked = _checked(response)
    if not isinstance(checked, Answers):
        raise InvalidMessage(f"answers were expected, {type(checked).__name__} came")
    return checked.predictions


def _noted(response: frames.Response) -> Noted:
    checked = _checked(response)
    if not isinstance(checked, Noted):
        raise InvalidMessage(f"what became of events was expected, {type(checked).__name__} came")
    return checked


def _joined(response: frames.Response) -> bool:
    checked = _checked(response)
    if not isinstance(checked, Joined):
        raise InvalidMessage(f"a joined label was expected, {type(checked).__name__} came")
    return checked.joined


def _status(response: frames.Response) -> dict[str, str | int | float | bool | None]:
    checked = _checked(response)
    if not isinstance(checked, StatusAnswer):
        raise InvalidMessage(f"a status was expected, {type(checked).__name__} came")
    return checked.status


class AgentClient:
    """Blocking client; one request at a time, or a pipeline of them. Not for several threads."""

    def __init__(self, path: str | Path, *, timeout: float = 10.0, model: str = "") -> None:
        """Connect.

        Args:
            path: the agent's socket.
            timeout: seconds until an answer is no longer waited for, nor computed.
            model: its name, where the agent serves several.
        """
        self._path = Path(path)
        self._timeout = timeout
        self._terms = _Terms(model, timeout)
        self._ids = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise _unavailable(self._path, error) from error

    def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]."""
        return _predictions(self._ask(_predict(next(self._ids), samples, slices, self._terms)))

    def predict_each(
        self,
        batches: Iterable[npt.ArrayLike],
        slices: dict[str, str] | None = None,
        *,
        in_flight: int = 32,
    ) -> Iterator[list[Prediction]]:
        """Answer many batches of windows in their order, sending some ahead.

        Args:
            batches: float32 [batch, samples, inputs] each.
            slices: of all of them.
            in_flight: requests that wait for their answers at most.
        """
        asked: deque[int] = deque()
        answers: dict[int, frames.Response] = {}
        for samples in batches:
            request = _predict(next(self._ids), samples, slices, self._terms)
            self._send(request)
            asked.append(request.id)
            if len(asked) >= in_flight:
                yield _predictions(self._answer_to(asked.popleft(), answers))
        while asked:
            yield _predictions(self._answer_to(asked.popleft(), answers))

    def share(self, shape: tuple[int, int, int]) -> SharedWindows:
        """Share memory for windows, float32 [batch, samples, inputs], with the agent.

        Worth it for large ones: what is written there is not sent.
        """
        windows = SharedWindows(next(self._ids), shape)
        try:
            request = Attach(id=next(self._ids), region=windows.region, size=windows.array.nbytes)
            socket.send_fds(self._socket, [frames.encode(request)], [windows.descriptor])
            _checked(self._receive_response())
        except (OSError, SerinusError) as error:
            windows.close()
            if isinstance(error, OSError):
                raise _unavailable(self._path, error) from error
            raise
        return windows

    def predict_shared(
        self, windows: SharedWindows, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer the windows that stand in shared memory now."""
        request = PredictShared(
            id=next(self._ids),
            region=windows.region,
            offset=0,
            shape=windows.shape,
            slices=slices or {},
            **self._terms.fields(),
        )
        return _predictions(self._ask(request))

    def unshare(self, windows: SharedWindows) -> None:
        """Let go of shared memory on both sides."""
        windows.close()
        _checked(self._ask(Detach(id=next(self._ids), region=windows.region)))

    def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Feed a sensor stream: times int64 [n] in microseconds, samples float32 [n, inputs]."""
        request = _push(next(self._ids), stream, times_us, samples, slices, self._terms)
        return _predictions(self._ask(request))

    def observe(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        sequence: npt.ArrayLike,
        fields: Given,
        arrived_us: npt.ArrayLike | None = None,
    ) -> Noted:
        """Let the agent remember events of one of the definition's streams.

        Args:
            stream: its name.
            times_us: event times, int64 [n] microseconds.
            sequence: int64 [n]; with the time it orders events and tells repeated ones.
            fields: a column for each of the stream's fields.
            arrived_us: when they came, int64 [n]; left out for now.
        """
        request = _observe(
            next(self._ids), stream, times_us, sequence, fields, arrived_us, self._terms
        )
        return _noted(self._ask(request))

    def ask(self, fields: Given, slices: dict[str, str] | None = None) -> list[Prediction]:
        """Answer requests, a column for each field; without the one of their time, of now."""
        return _predictions(self._ask(_ask(next(self._ids), fields, slices, self._terms)))

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Report the true class of a prediction; false when the agent no longer knows it."""
        request = Feedback(id=next(self._ids), prediction_id=prediction_id, label=label)
        return _joined(self._ask(request))

    def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing."""
        return _status(self._ask(Status(id=next(self._ids))))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _ask(self, request: frames.Request) -> frames.Response:
        self._send(request)
        response = self._receive_response()
        if response.id != request.id and not isinstance(response, Failure):
            self.close()
            raise InvalidMessage(
                f"the answer to request {response.id} came for {request.id}; connect again"
            )
        return response

    def _send(self, request: frames.Request) -> None:
        data = frames.encode(request)
        with self._translated():
            self._socket.sendall(data)

    def _receive_response(self) -> frames.Response:
        with self._translated():
            header = self._receive(frames.HEADER.size)
            return frames.decode_response(self._receive(frames.frame_length(header)))

    def _answer_to(self, request_id: int, answers: dict[int, frames.Response]) -> frames.Response:
        """The answer to one of several requests; others that come first are kept."""
        while request_id not in answers:
            response = self._receive_response()
            if response.id == 0:
                return response  # a failure that is not about one request
            answers[response.id] = response
        return answers.pop(request_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            # A late answer would be taken for the answer to the next request.
            self.close()
            raise _late(self._path, self._timeout) from error
        except OSError as error:
            self.close()
            raise _unavailable(self._path, error) from error

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError("the agent closed the connection")
            data += part
        return bytes(data)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()


class AsyncAgentClient:
    """Client for asyncio. Requests may overlap; answers find theirs by id."""

    def __init__(self, path: str | Path, *, timeout: float = 10.0, model: str = "") -> None:
        """Take where to connect; see :class:`AgentClient`."""
        self._path = Path(path)
        self._timeout = timeout
        self._terms = _Terms(model, timeout)
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[frames.Response]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> Self:
        """Connect; raise :class:`Unavailable` where no agent listens."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(str(self._path))
        except OSError as error:
            raise _unavailable(self._path, error) from error
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))
        return self

    async def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]."""
        return _predictions(
            await self._ask(_predict(next(self._ids), samples, slices, self._terms))
        )

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Feed a sensor stream: times int64 [n] in microseconds, samples float32 [n, inputs]."""
        request = _push(next(self._ids), stream, times_us, samples, slices, self._terms)
        return _predictions(await self._ask(request))

    async def observe(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        sequence: npt.ArrayLike,
        fields: Given,
        arrived_us: npt.ArrayLike | None = None,
    ) -> Noted:
        """Let the agent remember events of one of the definition's streams.

        Args:
            stream: its name.
            times_us: event times, int64 [n] microseconds.
            sequence: int64 [n]; with the time it orders events and tells repeated ones.
            fields: a column for each of the stream's fields.
            arrived_us: when they came, int64 [n]; left out for now.
        """
        request = _observe(
            next(self._ids), stream, times_us, sequence, fields, arrived_us, self._terms
        )
        return _noted(await self._ask(request))

    async def ask(self, fields: Given, slices: dict[str, str] | None = None) -> list[Prediction]:
        """Answer requests, a column for each field; without the one of their time, of now."""
        return _predictions(await self._ask(_ask(next(self._ids), fields, slices, self._terms)))

    async def feedback(self, prediction_id: str, label: str) -> bool:
        """Report the true class of a prediction; false when the agent no longer knows it."""
        request = Feedback(id=next(self._ids), prediction_id=prediction_id, label=label)
        return _joined(await self._ask(request))

    async def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing."""
        return _status(await self._ask(Status(id=next(self._ids))))

    async def close(self) -> None:
        """Close the connection; requests under way fail."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()

    async def _ask(self, request: frames.Request) -> frames.Response:
        if self._writer is None or self._reading is None or self._reading.done():
            raise Unavailable(f"not connected to {self._path}; connect again")
        future: asyncio.Future[frames.Response] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            self._writer.write(frames.encode(request))
            async with asyncio.timeout(self._timeout):
                await self._writer.drain()
                return await future
        except TimeoutError as error:
            raise _late(self._path, self._timeout) from error
        except OSError as error:
            raise _unavailable(self._path, error) from error
        finally:
            self._waiting.pop(request.id, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason: SerinusError = Unavailable(f"the agent on {self._path} closed the connection")
        try:
            while True:
                header = await reader.readexactly(frames.HEADER.size)
                body = await reader.readexactly(frames.frame_length(header))
                response = frames.decode_response(body)
                if response.id == 0:
                    # Not about one of our requests: about the connection as a whole.
                    _checked(response)
                future = self._waiting.get(response.id)
                if future is not None and not future.done():
                    future.set_result(response)
        except (OSError, EOFError):
            pass  # the reason below says it to everybody who waits
        except SerinusError as error:
            reason = error
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(reason)

    async def __aenter__(self) -> Self:
        """Connect on entry."""
        return await self.connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()
