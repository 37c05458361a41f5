"""The client that blocks."""

import itertools
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy.typing as npt

from edge_agent.client import answers, requests
from edge_agent.serving import frames
from edge_agent.serving.explanation import By, Explanation
from edge_agent.serving.frames import Attach, Detach, Feedback, Noted, Status
from edge_agent.serving.predictions import Prediction
from edge_agent.shared_windows import SharedWindows
from edge_core.errors import InvalidMessage, SerinusError
from edge_core.features.columns import Given


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
        self._terms = requests.Terms(model, timeout)
        self._ids = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise answers.unavailable(self._path, error) from error

    def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]."""
        request = requests.predict(next(self._ids), samples, slices, self._terms)
        return answers.predictions(self._ask(request))

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
        kept: dict[int, frames.Response] = {}
        for samples in batches:
            request = requests.predict(next(self._ids), samples, slices, self._terms)
            self._send(request)
            asked.append(request.id)
            if len(asked) >= in_flight:
                yield answers.predictions(self._answer_to(asked.popleft(), kept))
        while asked:
            yield answers.predictions(self._answer_to(asked.popleft(), kept))

    def share(self, shape: tuple[int, int, int]) -> SharedWindows:
        """Share memory for windows, float32 [batch, samples, inputs], with the agent.

        Worth it for large ones: what is written there is not sent.
        """
        windows = SharedWindows(next(self._ids), shape)
        try:
            request = Attach(id=next(self._ids), region=windows.region, size=windows.array.nbytes)
            socket.send_fds(self._socket, [frames.encode(request)], [windows.descriptor])
            answers.checked(self._answer_to_last(request.id))
        except (OSError, SerinusError) as error:
            windows.close()
            if isinstance(error, OSError):
                raise answers.unavailable(self._path, error) from error
            raise
        return windows

    def predict_shared(
        self, windows: SharedWindows, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer the windows that stand in shared memory now."""
        request = requests.predict_shared(next(self._ids), windows, slices, self._terms)
        return answers.predictions(self._ask(request))

    def unshare(self, windows: SharedWindows) -> None:
        """Let go of shared memory on both sides."""
        windows.close()
        answers.checked(self._ask(Detach(id=next(self._ids), region=windows.region)))

    def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Feed a sensor stream: times int64 [n] in microseconds, samples float32 [n, inputs]."""
        request = requests.push(next(self._ids), stream, times_us, samples, slices, self._terms)
        return answers.predictions(self._ask(request))

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
        request = requests.observe(
            next(self._ids), stream, times_us, sequence, fields, arrived_us, self._terms
        )
        return answers.noted(self._ask(request))

    def ask(self, fields: Given, slices: dict[str, str] | None = None) -> list[Prediction]:
        """Answer requests, a column for each field; without the one of their time, of now."""
        request = requests.ask(next(self._ids), fields, slices, self._terms)
        return answers.predictions(self._ask(request))

    def explain(
        self, rows: npt.ArrayLike | Given, *, by: By | None = None, per_class: bool = False
    ) -> Explanation:
        """Say what each input did to the answers; nothing is remembered or counted.

        Args:
            rows: whole windows float32 [batch, samples, inputs], or a column for each of a
                request's fields.
            by: what is occluded; left out: inputs of windows, features of requests.
            per_class: whether the changes of all classes are wanted, too.
        """
        request = requests.explain(next(self._ids), rows, by, per_class, self._terms)
        return answers.explanation(self._ask(request))

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Report the true class of a prediction; false when the agent no longer knows it."""
        request = Feedback(id=next(self._ids), prediction_id=prediction_id, label=label)
        return answers.joined(self._ask(request))

    def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing."""
        return answers.status(self._ask(Status(id=next(self._ids))))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _ask(self, request: frames.Request) -> frames.Response:
        self._send(request)
        return self._answer_to_last(request.id)

    def _answer_to_last(self, request_id: int) -> frames.Response:
        """The answer to the last request; those of a pipeline that was given up are dropped."""
        response = self._receive_response()
        while 0 < response.id < request_id:
            response = self._receive_response()
        if response.id > request_id:
            self.close()
            raise InvalidMessage(
                f"the answer to request {request_id} came for {response.id}; connect again"
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

    def _answer_to(self, request_id: int, kept: dict[int, frames.Response]) -> frames.Response:
        """The answer to one of several requests; others that come first are kept."""
        while request_id not in kept:
            response = self._receive_response()
            if response.id == 0:
                return response  # a failure that is not about one request
            kept[response.id] = response
        return kept.pop(request_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            # A late answer would be taken for the answer to the next request.
            self.close()
            raise answers.late(self._path, self._timeout) from error
        except OSError as error:
            self.close()
            raise answers.unavailable(self._path, error) from error

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
