"""The socket's frames: a little-endian u32 length, then one msgpack array with its kind first.

Arrays travel as their little-endian bytes. ``docs/socket-protocol.md`` shows it for other
languages.
"""

import struct

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.fields import Column
from edge_agent.serving.predictions import Prediction
from edge_core.errors import InvalidInput, InvalidMessage, quoted
from edge_core.features.evaluation import Int64

MAX_FRAME_BYTES = 8 * 1024 * 1024
HEADER = struct.Struct("<I")


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """Something asked; a field that this agent does not know is refused, never ignored."""


class _Response(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An answer with the id of its request; a newer agent may append fields."""


class Predict(_Request, frozen=True, kw_only=True, tag="predict"):
    """Answer whole raw windows."""

    id: int
    shape: tuple[int, int, int]
    """Batch, samples, inputs."""
    samples: bytes
    """float32, row-major."""
    slices: dict[str, str] = {}
    model: str = ""
    """Name of the model; empty where only one is served."""
    deadline_us: int = 0
    """CLOCK_MONOTONIC until which an answer is worth having; 0 for ever."""


class PredictShared(_Request, frozen=True, kw_only=True, tag="predict_shared"):
    """Answer whole raw windows that lie in an attached region of shared memory."""

    id: int
    region: int
    offset: int
    """Of the first byte of the windows, float32, row-major."""
    shape: tuple[int, int, int]
    """Batch, samples, inputs."""
    slices: dict[str, str] = {}
    model: str = ""
    deadline_us: int = 0


class Attach(_Request, frozen=True, kw_only=True, tag="attach"):
    """Share memory: a sealed memfd comes beside this frame, as ancillary data."""

    id: int
    region: int
    """A number that the application chooses."""
    size: int
    """Bytes."""


class Detach(_Request, frozen=True, kw_only=True, tag="detach"):
    """Let go of a region."""

    id: int
    region: int


class Push(_Request, frozen=True, kw_only=True, tag="push"):
    """Feed a sensor stream; the answer holds the windows that are complete now."""

    id: int
    stream: str
    times_us: bytes
    """int64 [n]."""
    samples: bytes
    """float32 [n, inputs]."""
    slices: dict[str, str] = {}
    model: str = ""
    deadline_us: int = 0


class Observe(_Request, frozen=True, kw_only=True, tag="observe"):
    """Remember events of one of the definition's streams."""

    id: int
    stream: str
    times_us: bytes
    """Event times, int64 [n]."""
    sequence: bytes
    """int64 [n]."""
    fields: dict[str, Column]
    """A column for each of the stream's fields."""
    arrived_us: bytes | None = None
    """When they came, int64 [n]; none for now."""
    model: str = ""
    deadline_us: int = 0


class Ask(_Request, frozen=True, kw_only=True, tag="ask"):
    """Answer requests."""

    id: int
    fields: dict[str, Column]
    """A column for each of the request's fields; the one of its time may be left out for now."""
    slices: dict[str, str] = {}
    model: str = ""
    deadline_us: int = 0


class Feedback(_Request, frozen=True, kw_only=True, tag="feedback"):
    """The true class of an earlier prediction."""

    id: int
    prediction_id: str
    label: str


class Status(_Request, frozen=True, kw_only=True, tag="status"):
    """Ask what the agent is doing."""

    id: int


Request = Predict | PredictShared | Attach | Detach | Push | Observe | Ask | Feedback | Status


class Answers(_Response, frozen=True, kw_only=True, tag="answers"):
    """Answers to ``predict``, ``push`` or ``ask``."""

    id: int
    predictions: list[Prediction]


class Noted(_Response, frozen=True, kw_only=True, tag="observed"):
    """What became of events."""

    id: int
    taken: int
    dropped: dict[str, int]
    """By cause; see :class:`~edge_core.features.entities.Dropped`."""


class Joined(_Response, frozen=True, kw_only=True, tag="joined"):
    """Whether the label found its prediction."""

    id: int
    joined: bool


class Attached(_Response, frozen=True, kw_only=True, tag="attached"):
    """Regions of shared memory that are attached now."""

    id: int
    regions: list[int]


class StatusAnswer(_Response, frozen=True, kw_only=True, tag="status"):
    """What the agent is doing, in plain names and values."""

    id: int
    status: dict[str, str | int | float | bool | None]


class Failure(_Response, frozen=True, kw_only=True, tag="failure"):
    """The request was refused; ``kind`` is the name of an error class of Serinus."""

    id: int
    kind: str
    message: str


Response = Answers | Noted | Joined | Attached | StatusAnswer | Failure

_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_response: msgspec.msgpack.Decoder[Response] = msgspec.msgpack.Decoder(Response)
_encoder = msgspec.msgpack.Encoder()


def encode(frame: Request | Response) -> bytes:
    """Bytes of a frame, length included."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise too_large(len(body))
    return HEADER.pack(len(body)) + body


def decode_request(body: bytes | memoryview) -> Request:
    """Parse a frame without its length; raise :class:`InvalidMessage` where it is not one."""
    try:
        return _request.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"not a request: {quoted(error)}") from error


def decode_response(body: bytes | memoryview) -> Response:
    """Parse a frame without its length; raise :class:`InvalidMessage` where it is not one."""
    try:
        return _response.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"not a response: {quoted(error)}") from error


def frame_length(header: bytes) -> int:
    """Length of the frame's body; raise :class:`InvalidMessage` above the limit."""
    length: int = HEADER.unpack(header)[0]
    if length > MAX_FRAME_BYTES:
        raise too_large(length)
    return length


def too_large(length: int) -> InvalidMessage:
    """The refusal of a frame of this many bytes."""
    return InvalidMessage(
        f"frame of {length} bytes; the limit is {MAX_FRAME_BYTES}: send fewer rows in one request"
    )


def request_id(body: bytes | memoryview) -> int:
    """The id of a frame that is not a request, where it has one; else 0.

    Whoever sent an unknown kind or a wrong field still learns which request was refused.
    """
    try:
        content = msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return 0
    if isinstance(content, list) and len(content) > 1 and type(content[1]) is int:
        return content[1] if 0 <= content[1] < 2**63 else 0
    return 0


def windows_of(request: Predict) -> Float32:
    """Float32 [batch, samples, inputs] of a request; raise :class:`InvalidInput`."""
    batch, samples, inputs = request.shape
    if len(request.samples) != 4 * batch * samples * inputs or min(request.shape) < 1:
        raise InvalidInput(
            f"{len(request.samples)} bytes of samples do not fill the shape {list(request.shape)}"
        )
    return np.frombuffer(request.samples, "<f4").reshape(request.shape)


def moments_of(what: str, data: bytes) -> Int64:
    """int64 [n] of a request's bytes; raise :class:`InvalidInput`."""
    if len(data) % 8:
        raise InvalidInput(f"{what} have {len(data)} bytes; each has 8 of them")
    return np.frombuffer(data, "<i8")


def samples_of(request: Push) -> tuple[Int64, Float32]:
    """Times int64 [n] and samples float32 [n, inputs]; raise :class:`InvalidInput`."""
    count, rest = divmod(len(request.times_us), 8)
    if rest or count == 0 or len(request.samples) % (4 * count):
        raise InvalidInput(
            f"{len(request.times_us)} bytes of times and {len(request.samples)} bytes of samples "
            "do not go together"
        )
    times = np.frombuffer(request.times_us, "<i8")
    return times, np.frombuffer(request.samples, "<f4").reshape(count, -1)
