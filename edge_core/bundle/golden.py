"""Golden rows: raw values with the features and answers that a device has to find again."""

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidBundle, InvalidInput, quoted
from edge_core.features import logs, playback
from edge_core.features.definition import FeatureDefinition, of_requests, of_windows
from edge_core.features.evaluation import Evaluator
from edge_core.features.logs import Log
from edge_core.features.request_evaluation import RequestEvaluator

Float32 = npt.NDArray[np.float32]

MAX_GOLDEN_BYTES = 64 * 1024 * 1024
EXPECTED = "expected."
EMBEDDING = "embedding."


class Golden(NamedTuple):
    """Recorded rows of a bundle."""

    raw: Float32 | Log
    """Sensor windows, float32 [rows, samples, inputs]; or a log of its own, from its beginning."""
    features: Float32
    """float32 [rows, features], to be met bit for bit."""
    expected: Mapping[str, Float32]
    """Target -> logits float32 [rows, classes], to be met within the variant's tolerance."""
    embeddings: Mapping[str, Float32] = MappingProxyType({})
    """Target -> float32 [rows, coordinates], likewise; empty where the release has none."""


def pack(golden: Golden) -> bytes:
    """As an npz file; a log is its bytes."""
    raw = golden.raw
    arrays: dict[str, npt.NDArray[np.generic]] = {"features": golden.features}
    if isinstance(raw, Log):
        arrays["log"] = np.frombuffer(logs.pack(raw), np.uint8)
    else:
        arrays["samples"] = raw
    content = io.BytesIO()
    for prefix, named in ((EXPECTED, golden.expected), (EMBEDDING, golden.embeddings)):
        arrays |= {f"{prefix}{target}": found for target, found in named.items()}
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def unpack(data: bytes) -> Golden:
    """Read golden rows; raise :class:`InvalidBundle` where they are malformed."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            raw = logs.unpack(arrays["log"].tobytes()) if "log" in arrays else arrays["samples"]
            features = arrays["features"]
            expected, embeddings = (
                {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
                for prefix in (EXPECTED, EMBEDDING)
            )
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds over bad bytes
        raise InvalidBundle(f"golden vectors are not readable: {quoted(error)}") from error
    numbers = [features, *expected.values(), *embeddings.values()]
    numbers += [] if isinstance(raw, Log) else [raw]
    # A member of the zip file that is no array comes as its bytes.
    if any(not isinstance(a, np.ndarray) or a.dtype != np.float32 for a in numbers):
        raise InvalidBundle("golden vectors are not float32")
    return Golden(raw, features, expected, embeddings)


def samples(definition: FeatureDefinition, raw: Float32 | Log) -> Float32:
    """Raw values as statistics take them, float32 [rows, samples, inputs]."""
    if isinstance(raw, Log):
        return logs.numbers(of_requests(definition), raw.request)
    return raw


def features(definition: FeatureDefinition, raw: Float32 | Log) -> Float32:
    """Features of raw values, by a fresh evaluator.

    Raises:
        InvalidInput: values that the definition refuses.
        InvalidBundle: raw values of the other kind.
    """
    if isinstance(raw, Log):
        return RequestEvaluator(of_requests(definition)).replay(raw.events, raw.request)
    evaluator = Evaluator(of_windows(definition))
    return evaluator.evaluate(evaluator.quantise(raw))


def served(definition: FeatureDefinition, raw: Float32 | Log) -> Float32:
    """As :func:`features`, by the way that serving takes, so that it is checked, too.

    A log is observed and asked in order of arrival, and the evaluator is restored in the middle.

    Raises: as :func:`features`.
    """
    if not isinstance(raw, Log):
        return features(definition, raw)
    requests = of_requests(definition)
    try:
        rows = len(np.asarray(raw.request[requests.request.time]))
        rows += sum(len(np.asarray(events.times_us)) for events in raw.events.values())
        return playback.play(
            requests, raw, restart_after=max(1, rows // 2), opened=RequestEvaluator
        ).features
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        # Playing puts the log in order before it is looked at.
        raise InvalidInput(f"the golden log does not fit the features: {quoted(error)}") from error
