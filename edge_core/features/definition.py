"""A feature definition: data that says how raw values become a model's inputs.

It is part of the signed bundle (``features.json``) and names operations, never code. One kind cuts
sensor samples into windows, the other answers requests from entities' events.
"""

import hashlib
from typing import Any

import msgspec

from edge_core.errors import InvalidBundle, quoted
from edge_core.features.explaining import explain
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition

DEFINITION_VERSION = 2
READ_VERSIONS = (1, 2)
MAX_DEFINITION_BYTES = 1024 * 1024

FeatureDefinition = WindowDefinition | RequestDefinition


class _Outline(msgspec.Struct):
    v: int
    request: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def parse(data: bytes) -> FeatureDefinition:
    """Parse ``features.json``; raise :class:`InvalidBundle` where it is not valid."""
    if len(data) > MAX_DEFINITION_BYTES:
        raise InvalidBundle(
            f"feature definition has {len(data)} bytes; the limit is {MAX_DEFINITION_BYTES}"
        )
    try:
        outline = msgspec.json.decode(data, type=_Outline)
        if outline.v not in READ_VERSIONS:
            raise InvalidBundle(
                f"feature definition has version {outline.v}; known are 1 and {DEFINITION_VERSION}"
            )
        if outline.request is msgspec.UNSET:
            return msgspec.json.decode(data, type=WindowDefinition)
        return msgspec.json.decode(data, type=RequestDefinition)
    except msgspec.ValidationError as error:
        said = explain(error, _plain(data))
        raise InvalidBundle(f"feature definition is not valid: {said}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"feature definition is not valid: {quoted(error)}") from error


def _plain(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def serialize(definition: FeatureDefinition) -> bytes:
    """Canonical readable JSON bytes: what is read back from them is written the same."""
    # Once around, so that a whole number where a real one belongs is written as it is read.
    read = msgspec.json.decode(msgspec.json.encode(definition), type=type(definition))
    return msgspec.json.format(msgspec.json.encode(read), indent=2) + b"\n"


def digest(definition: FeatureDefinition) -> str:
    """Sha256 of the canonical bytes: what states and samples name their definition by."""
    return hashlib.sha256(serialize(definition)).hexdigest()


def of_windows(definition: FeatureDefinition) -> WindowDefinition:
    """The definition, where it is one of sensor windows; else raise :class:`InvalidBundle`."""
    if not isinstance(definition, WindowDefinition):
        raise InvalidBundle("the features are those of requests; sensor windows are needed here")
    return definition


def of_requests(definition: FeatureDefinition) -> RequestDefinition:
    """The definition, where it is one of requests; else raise :class:`InvalidBundle`."""
    if not isinstance(definition, RequestDefinition):
        raise InvalidBundle("the features are those of sensor windows; requests are needed here")
    return definition
