"""Frames of the socket: their parsers alone, and whole streams through a real socket."""

import contextlib
import socket
from pathlib import Path

import numpy as np

from edge_agent.serving import frames
from edge_agent.serving.frames import (
    Answers,
    Ask,
    Attach,
    Attached,
    Detach,
    Failure,
    Feedback,
    Joined,
    Noted,
    Observe,
    Predict,
    PredictShared,
    Push,
    Request,
    Response,
    Status,
    StatusAnswer,
)
from edge_core import errors
from edge_core.errors import SerinusError
from tests.fuzz.forms import BYTES, MSGPACK
from tests.fuzz.mutator import Case
from tests.fuzz.served import NOW, PARCELS, WINDOWS, Served
from tests.fuzz.surface import Surface
from tests.simulators.tiny_bundle import tiny_rows

SAMPLES = tiny_rows(2)[0].astype("<f4")
TIMES = (np.arange(8, dtype="<i8") * 20_000 + NOW).tobytes()
EVENTS = np.arange(3, dtype="<i8")
MOST_SENT = 100_000
"""While a stream is sent nobody reads; the answers have to fit into the socket."""
REQUESTS: list[Request] = [
    Predict(id=1, shape=SAMPLES.shape, samples=SAMPLES.tobytes(), model=WINDOWS),
    Predict(
        id=2, shape=SAMPLES.shape, samples=SAMPLES.tobytes(), model=WINDOWS, slices={"side": "left"}
    ),
    Push(id=3, stream="s", times_us=TIMES, samples=SAMPLES[0].tobytes(), model=WINDOWS),
    Observe(
        id=4,
        stream="parcels",
        times_us=(EVENTS + NOW - 9).tobytes(),
        sequence=EVENTS.tobytes(),
        fields={
            "place": ["p1", "p2", "p1"],
            "kind": ["box", None, "bag"],
            "weight": [1.5, None, 2],
        },
        arrived_us=(EVENTS + NOW - 5).tobytes(),
        model=PARCELS,
    ),
    Ask(
        id=5,
        fields={"at": [NOW, NOW], "place": ["p1", "p2"], "size": SAMPLES[0, 0].tobytes()},
        model=PARCELS,
    ),
    Ask(id=6, fields={"place": ["p1"], "size": [None]}, model=PARCELS, deadline_us=2**62),
    Feedback(id=7, prediction_id="fuzz-0", label="still"),
    Status(id=8),
    Detach(id=9, region=1),
]
ALONE: list[Request] = [
    Attach(id=1, region=1, size=4096),
    PredictShared(id=2, region=1, offset=0, shape=(1, 8, 2)),
]
ANSWERS: list[Response] = [
    Noted(id=1, taken=1, dropped={"late": 1}),
    Joined(id=2, joined=True),
    Attached(id=3, regions=[1, 2]),
    StatusAnswer(id=4, status={"device": "d", "rows": 1, "share": 0.5, "active": None}),
    Failure(id=5, kind="InvalidInput", message="no"),
]


class Decoding(Surface):
    """Functions that read frames, on both sides."""

    name = "decoding"
    forms = (MSGPACK,)
    short = 800

    def __init__(self, folder: Path) -> None:
        everything = [*REQUESTS, *ALONE, *ANSWERS]
        self.seeds = [(frames.encode(frame)[frames.HEADER.size :],) for frame in everything]

    def feed(self, case: Case) -> int:
        (body,) = case
        assert isinstance(frames.request_id(body), int)
        return self._read(body, request=True) and self._read(body, request=False)

    def _read(self, body: bytes, *, request: bool) -> int:
        try:
            if not request:
                found: Request | Response = frames.decode_response(body)
                assert frames.decode_response(frames.encode(found)[4:]) == found or _nan(found)
                return 0
            found = frames.decode_request(body)
        except errors.InvalidMessage:
            return 1
        assert frames.decode_request(frames.encode(found)[4:]) == found or _nan(found)
        match found:
            case Predict():
                assert frames.windows_of(found).shape == found.shape
            case Push():
                times, samples = frames.samples_of(found)
                assert len(times) == len(samples)
            case Observe():
                frames.moments_of("times", found.times_us)
        return 0

    def check(self) -> None:
        for (body,) in self.seeds:
            assert self._read(body, request=True) + self._read(body, request=False) == 1


def _nan(frame: object) -> bool:
    return b"nan" in repr(frame).encode()


class Socket(Surface):
    """Single frames to a real engine on its real socket; each gets one answer."""

    name = "socket"
    forms = (MSGPACK,)

    def __init__(self, folder: Path) -> None:
        self._served = Served(folder)
        self._peer = connected(self._served)
        self.seeds = [(frames.encode(frame)[frames.HEADER.size :],) for frame in REQUESTS]
        self._scores = self._ask()

    def counted(self) -> int:
        return self._served.engine.tally.refused_requests

    def feed(self, case: Case) -> int:
        (body,) = case
        if len(body) > frames.MAX_FRAME_BYTES:
            return 0
        self._peer.sendall(frames.HEADER.pack(len(body)) + body)
        answer = read(self._peer)
        assert answer is not None, "the connection was closed"
        assert answer.id == frames.request_id(body), answer
        if isinstance(answer, Failure):
            raise refusal(answer)
        return 0

    def check(self) -> None:
        assert self._ask() == self._scores

    def _ask(self) -> list[list[float]]:
        self._peer.sendall(frames.encode(REQUESTS[0]))
        answer = read(self._peer)
        assert isinstance(answer, Answers), answer
        return [found.scores for found in answer.predictions]

    def close(self) -> None:
        self._peer.close()
        self._served.close()


class Streams(Surface):
    """Whole streams of bytes, wrong lengths and all, each on a connection of its own."""

    name = "streams"
    forms = (BYTES,)

    def __init__(self, folder: Path) -> None:
        self._served = Served(folder)
        self._steady = connected(self._served)
        several = b"".join(map(frames.encode, [*REQUESTS[:2], *REQUESTS[4:6]]))
        self.seeds = [(frames.encode(frame),) for frame in REQUESTS] + [(several,)]

    def feed(self, case: Case) -> int:
        stream = case[0][:MOST_SENT]
        before = self._served.engine.tally.refused_requests
        refusals = 0
        with connected(self._served) as peer:
            # The agent may close while this sends, where bytes are no frame's length.
            with contextlib.suppress(OSError):
                peer.sendall(stream)
                peer.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while (answer := read(peer)) is not None:
                    refusals += isinstance(answer, Failure)
        self.check()  # by then, the turn in which the connection ended is over, too
        counted = self._served.engine.tally.refused_requests - before
        # Requests before the one that ended the connection are counted and not answered any more.
        assert refusals <= counted <= max(refusals, _frames(stream)), (refusals, counted)
        return refusals

    def check(self) -> None:
        self._steady.sendall(frames.encode(REQUESTS[0]))
        assert isinstance(read(self._steady), Answers)

    def close(self) -> None:
        self._steady.close()
        self._served.close()


def _frames(stream: bytes) -> int:
    """How many frames begin in a stream."""
    count = at = 0
    while at + frames.HEADER.size <= len(stream):
        at += frames.HEADER.size + int.from_bytes(stream[at : at + frames.HEADER.size], "little")
        count += 1
    return count


def connected(served: Served) -> socket.socket:
    """A connection to the engine."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(50)
    peer.connect(str(served.path))
    return peer


def read(peer: socket.socket) -> Response | None:
    """The next answer; none where the connection ended."""
    header = _exactly(peer, frames.HEADER.size)
    if header is None:
        return None
    body = _exactly(peer, frames.frame_length(header))
    assert body is not None, "cut in the middle of an answer"
    return frames.decode_response(body)


def _exactly(peer: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            assert not data
            return None
        data += part
    return data


def refusal(answer: Failure) -> SerinusError:
    """The error that an answer tells of."""
    kind = getattr(errors, answer.kind)
    assert issubclass(kind, SerinusError)
    found: SerinusError = kind(answer.message)
    return found
