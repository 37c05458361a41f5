"""The fast interface: length-prefixed frames over a Unix socket, read by the inference thread."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from edge_agent.serving import admission, frames
from edge_agent.serving.admission import Admitted
from edge_agent.serving.asking import Occlusion
from edge_agent.serving.connection import Connection
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.frames import (
    Answers,
    Ask,
    Attach,
    Attached,
    Detach,
    Explain,
    Explained,
    Failure,
    Feedback,
    Joined,
    Noted,
    Observe,
    Predict,
    PredictShared,
    Push,
    StatusAnswer,
)
from edge_agent.serving.work import Active, Answer, Remembered, Terms
from edge_core.errors import (
    InvalidConfiguration,
    InvalidInput,
    Overloaded,
    SerinusError,
    Unavailable,
)
from edge_core.features.request_evaluation import Observed

MAX_CONNECTIONS = 1024
BACKLOG = MAX_CONNECTIONS
ACCEPTED_TOGETHER = 64
MAX_STATUS_REQUESTS = 64
"""That wait for the event loop; what waits for the inference thread is bounded in rows."""

StatusSource = Callable[[], dict[str, str | int | float | bool | None]]

log = logging.getLogger(__name__)


class SocketServer:
    """Applications on a Unix socket. But for :meth:`close`, the inference thread's own."""

    def __init__(self, listener: socket.socket, engine: Engine, status: StatusSource) -> None:
        self._listener = listener
        self._engine = engine
        self._thread = engine.thread
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._waiting: list[Connection] = []
        self._status_requests = 0
        # Given up for a moment where the process has no descriptor left to refuse with.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._thread.at_turn_end(self._flush)
        self._thread.at_stop(self._end)
        self._thread.post(lambda: self._thread.watch(listener.fileno(), self._accept))

    def close(self) -> None:
        """Take no further applications; those that are there are answered. From any thread."""
        self._thread.post(self._stop_listening)

    def _stop_listening(self) -> None:
        if self._listener.fileno() >= 0:
            self._thread.forget(self._listener.fileno())
            self._listener.close()

    def _end(self) -> None:
        self._stop_listening()
        for connection in list(self._connections):
            connection.close()
        self._give_up_spare()

    def _accept(self, _: int) -> None:
        for _turn in range(ACCEPTED_TOGETHER):
            try:
                peer, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._refuse_without_descriptor(error)
                return
            self._take(peer)

    def _take(self, peer: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            error = Overloaded(f"more than {MAX_CONNECTIONS} connections; close some")
            self._refused(error)
            failure = Failure(id=0, kind=type(error).__name__, message=str(error))
            with contextlib.suppress(OSError), peer:
                peer.setblocking(False)
                peer.send(frames.encode(failure))
            return
        self._connections.add(
            Connection(
                peer,
                self._thread,
                self._dispatch,
                self._waiting.append,
                self._refused,
                self._connections.discard,
            )
        )

    def _refused(self, error: SerinusError) -> None:
        self._engine.tally.refused("socket", type(error).__name__)

    def _refuse_without_descriptor(self, error: OSError) -> None:
        """End the connection that no descriptor is left for; it would come up again for ever."""
        log.error("an application was turned away: %s", error.strerror)
        self._give_up_spare()
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        with contextlib.suppress(OSError):  # another thread may have taken it meanwhile
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _flush(self) -> None:
        for connection in self._waiting:
            connection.flush()
        self._waiting.clear()

    def _dispatch(self, connection: Connection, request: frames.Request) -> None:
        match request:
            case Predict():
                active = self._engine.serving(request.model)
                work = admission.windows(active.release, frames.windows_of(request))
                self._admit(connection, request, active, work, request.slices)
            case PredictShared(region=region, offset=offset, shape=shape):
                active = self._engine.serving(request.model)
                admission.check_shape(active.release, shape)  # before anything is copied
                samples = connection.regions.windows(region, offset, shape)
                work = admission.windows(active.release, samples)
                self._admit(connection, request, active, work, request.slices)
            case Push():
                active = self._engine.serving(request.model)
                times, samples = frames.samples_of(request)
                work = admission.samples(active.release, request.stream, times, samples)
                self._admit(connection, request, active, work, request.slices)
            case Observe():
                active = self._engine.serving(request.model)
                self._admit(connection, request, active, _events(active, request), {})
            case Ask():
                active = self._engine.serving(request.model)
                work = admission.requests(active.release, request.fields)
                self._admit(connection, request, active, work, request.slices)
            case Explain():
                active = self._engine.serving(request.model)
                self._admit(connection, request, active, _explanation(active, request), {})
            case Feedback():
                joined = self._engine.feedback(request.prediction_id, request.label)
                connection.send(Joined(id=request.id, joined=joined))
            case Attach() | Detach():
                _share(connection, request)
                connection.send(Attached(id=request.id, regions=connection.regions.numbers))
            case _:
                self._ask_status(connection, request.id)

    def _admit(
        self,
        connection: Connection,
        request: Predict | PredictShared | Push | Observe | Ask | Explain,
        active: Active,
        work: Admitted,
        slices: dict[str, str],
    ) -> None:
        deadline = request.deadline_us * 1e-6 if request.deadline_us else None
        terms = Terms(model=request.model, deadline=deadline, consumer=connection.consumer)
        done = partial(self._answer, connection, request.id)
        rows = self._thread.rows
        self._thread.take(self._engine.admit(active, work, slices, done, terms, rows))

    def _answer(self, connection: Connection, request_id: int, answer: Answer) -> None:
        match answer:
            case list():
                connection.send(Answers(id=request_id, predictions=answer))
            case SerinusError():
                connection.refuse(request_id, answer)
            case Observed(taken, dropped):
                counts = msgspec.structs.asdict(dropped)
                connection.send(Noted(id=request_id, taken=taken, dropped=counts))
            case Explanation():
                connection.send(Explained(id=request_id, explanation=answer))
            case Remembered():
                raise TypeError("no application asks for that")

    def _ask_status(self, connection: Connection, request_id: int) -> None:
        if self._status_requests >= MAX_STATUS_REQUESTS:
            raise Overloaded(f"{MAX_STATUS_REQUESTS} ask for the status already; try again")
        self._status_requests += 1
        self._loop.call_soon_threadsafe(self._find_status, connection, request_id)

    def _find_status(self, connection: Connection, request_id: int) -> None:
        """Ask the agent, on the event loop, which owns what it tells."""
        answer: StatusAnswer | Unavailable
        try:
            answer = StatusAnswer(id=request_id, status=self._status())
        except Exception as error:  # a defect of ours: who asked has to hear of it
            log.error("telling the status failed: %s: %s", type(error).__name__, error)
            answer = Unavailable(f"the agent cannot tell ({type(error).__name__}: {error})")
        self._thread.post(partial(self._tell_status, connection, request_id, answer))

    def _tell_status(
        self, connection: Connection, request_id: int, answer: StatusAnswer | Unavailable
    ) -> None:
        self._status_requests -= 1
        if isinstance(answer, Unavailable):
            connection.refuse(request_id, answer)
        else:
            connection.send(answer)


def _events(active: Active, request: Observe) -> Admitted:
    arrived = request.arrived_us
    return admission.events(
        active.release,
        request.stream,
        frames.moments_of("times", request.times_us),
        frames.moments_of("sequence numbers", request.sequence),
        request.fields,
        None if arrived is None else frames.moments_of("arrivals", arrived),
    )


def _explanation(active: Active, request: Explain) -> Admitted:
    if request.shape is None and not request.samples:
        of = admission.requests(active.release, request.fields)
    else:
        of = admission.windows(active.release, frames.windows_of(request))
    how = Occlusion(request.by, request.per_class)
    return admission.explanation(active.release, of, how)


def _share(connection: Connection, request: Attach | Detach) -> None:
    if isinstance(request, Detach):
        connection.regions.detach(request.region)
        return
    descriptor = connection.take_descriptor()
    if descriptor is None:
        raise InvalidInput("no memory came beside this frame; send a memfd as SCM_RIGHTS with it")
    try:
        connection.regions.attach(request.region, request.size, descriptor)
    finally:
        os.close(descriptor)


async def listen(
    path: Path, engine: Engine, status: StatusSource, *, mode: int = 0o600
) -> SocketServer:
    """Serve frames on a Unix socket that only this user may open, if ``mode`` says no other.

    Raises:
        InvalidConfiguration: another process serves there, or the path cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(
            f"cannot serve on {path}: {error.strerror or error}; name another [serving] socket"
        ) from error
    except InvalidConfiguration:
        listener.close()
        raise
    return SocketServer(listener, engine, status)


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed agent left behind; refuse one that answers."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise InvalidConfiguration(
        f"another process serves on {path}; stop it, or name another [serving] socket"
    )
