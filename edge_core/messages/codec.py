"""Message <-> bytes: msgpack maps with a version, at most 64 KiB.

The current version is written; it and, where a message moved, the one before are read.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from edge_core.errors import InvalidMessage, quoted
from edge_core.messages import deployment, telemetry

MAX_MESSAGE_BYTES = 64 * 1024

Message = (
    telemetry.StatsWindow
    | telemetry.Sample
    | telemetry.ReportedState
    | telemetry.Online
    | deployment.DesiredState
)
M = TypeVar("M", bound=Message)

CURRENT: dict[type[msgspec.Struct], int] = {
    telemetry.StatsWindow: telemetry.STATS_VERSION,
    telemetry.Sample: telemetry.SAMPLE_VERSION,
    telemetry.ReportedState: telemetry.STATE_VERSION,
    telemetry.Online: telemetry.ONLINE_VERSION,
    deployment.DesiredState: deployment.DESIRED_VERSION,
}


class _Versioned(msgspec.Struct):
    v: int


_version = msgspec.msgpack.Decoder(_Versioned)
_decoders = {kind: msgspec.msgpack.Decoder(kind) for kind in CURRENT}
_sample1 = msgspec.msgpack.Decoder(telemetry.Sample1)
_state1 = msgspec.msgpack.Decoder(telemetry.ReportedState1)
_desired1 = msgspec.msgpack.Decoder(deployment.DesiredState1)
_before: dict[type[msgspec.Struct], Callable[[bytes], Message]] = {
    telemetry.Sample: lambda payload: _sample1.decode(payload).brought_up(),
    telemetry.ReportedState: lambda payload: _state1.decode(payload).brought_up(),
    deployment.DesiredState: lambda payload: _desired1.decode(payload).brought_up(),
}
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message | deployment.DesiredState1) -> bytes:
    """Pack a message; raise :class:`InvalidMessage` when it is larger than the limit.

    A desired state is packed in the version before for devices that read no other.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(
            f"{type(message).__name__} has {len(payload)} bytes; the limit is {MAX_MESSAGE_BYTES}"
        )
    return payload


def decode(kind: type[M], payload: bytes) -> M:
    """Unpack one message of ``kind``; the version is looked at before anything else.

    Raises:
        InvalidMessage: too long, not msgpack, an unknown version, or fields out of range.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(
            f"{kind.__name__} has {len(payload)} bytes; the limit is {MAX_MESSAGE_BYTES}"
        )
    try:
        version = _version.decode(payload).v
        before = _before.get(kind) if version == CURRENT[kind] - 1 else None
        if version != CURRENT[kind] and before is None:
            known = f"are {CURRENT[kind] - 1} and" if kind in _before else "is"
            raise InvalidMessage(
                f"{kind.__name__} has version {version}; known {known} {CURRENT[kind]}"
            )
        message = before(payload) if before else _decoders[kind].decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"not a {kind.__name__}: {quoted(error)}") from error
    return cast(M, message)
