"""The client for asyncio."""

import asyncio
import itertools
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy.typing as npt

from edge_agent.client import answers, requests
from edge_agent.serving import frames
from edge_agent.serving.explanation import By, Explanation
from edge_agent.serving.frames import Feedback, Noted, Status
from edge_agent.serving.predictions import Prediction
from edge_core.errors import SerinusError, Unavailable
from edge_core.features.columns import Given


class AsyncAgentClient:
    """Client for asyncio. Requests may overlap; answers find theirs by id."""

    def __init__(self, path: str | Path, *, timeout: float = 10.0, model: str = "") -> None:
        """Take where to connect; see :class:`AgentClient`."""
        self._path = Path(path)
        self._timeout = timeout
        self._terms = requests.Terms(model, timeout)
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[frames.Response]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> Self:
        """Connect; raise :class:`Unavailable` where no agent listens."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(str(self._path))
        except OSError as error:
            raise answers.unavailable(self._path, error) from error
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))
        return self

    async def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]."""
        request = requests.predict(next(self._ids), samples, slices, self._terms)
        return answers.predictions(await self._ask(request))

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Feed a sensor stream: times int64 [n] in microseconds, samples float32 [n, inputs]."""
        request = requests.push(next(self._ids), stream, times_us, samples, slices, self._terms)
        return answers.predictions(await self._ask(request))

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
        request = requests.observe(
            next(self._ids), stream, times_us, sequence, fields, arrived_us, self._terms
        )
        return answers.noted(await self._ask(request))

    async def ask(self, fields: Given, slices: dict[str, str] | None = None) -> list[Prediction]:
        """Answer requests, a column for each field; without the one of their time, of now."""
        request = requests.ask(next(self._ids), fields, slices, self._terms)
        return answers.predictions(await self._ask(request))

    async def explain(
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
        return answers.explanation(await self._ask(request))

    async def feedback(self, prediction_id: str, label: str) -> bool:
        """Report the true class of a prediction; false when the agent no longer knows it."""
        request = Feedback(id=next(self._ids), prediction_id=prediction_id, label=label)
        return answers.joined(await self._ask(request))

    async def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing."""
        return answers.status(await self._ask(Status(id=next(self._ids))))

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
            raise answers.late(self._path, self._timeout) from error
        except OSError as error:
            raise answers.unavailable(self._path, error) from error
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
                    answers.checked(response)
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
