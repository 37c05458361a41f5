"""Replays a log of events and requests through both entries of the feature path.

Training reads a whole log at once. A device takes what has come, one by one or a few at a time,
and starts again in between. Both have to give the same features.
"""

import numpy as np

from converters.replay import exercised
from converters.replay.replayed import Replayed, Step, compare, unseen
from edge_core.errors import InvalidInput
from edge_core.features import playback
from edge_core.features.agreement import Float32, Key
from edge_core.features.logs import Log
from edge_core.features.playback import Opened
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator

PIECES = (1, 1, 7, 1, 64, 3)
"""Rows that a device is given at once, taken in turn."""
RESTART_AFTER = 29
"""Rows after which an evaluator is stored and restored, in a short log."""
MOST_RESTARTS = 100
"""In a long one: storing takes as long as there is much to remember."""


def replay(
    definition: RequestDefinition,
    log: Log,
    training: Opened = RequestEvaluator,
    serving: Opened = RequestEvaluator,
    step: Step = unseen,
) -> Replayed:
    """Compare what training computes of a log with what a device computes of it.

    Args:
        definition: of the features.
        log: in any order.
        training: makes the evaluator that is given everything at once.
        serving: makes the evaluator that is given pieces.
        step: shows what runs.

    Raises:
        InvalidInput: values that the definition refuses, or no request.
    """
    times = np.asarray(log.request[definition.request.time], np.int64)
    if not len(times):
        raise InvalidInput("the log has no request; features are computed for requests alone")
    with step("features as in training"):
        expected = training(definition).replay(*log)
    rows = len(times) + sum(len(np.asarray(given.times_us)) for given in log.events.values())
    with step("features as on a device"):
        played = playback.play(
            definition,
            log,
            sizes=PIECES,
            restart_after=max(RESTART_AFTER, -(-rows // MOST_RESTARTS)),
            opened=serving,
        )
    with step("comparison"):
        shown = np.datetime_as_string(times.astype("datetime64[us]"), timezone="UTC").tolist()
        keys = [f"request {place} at {moment}" for place, moment in enumerate(shown)]
        return compare(
            "requests",
            definition.feature_names,
            _rows(keys, expected),
            _rows(keys, played.features),
            exercised.count(definition, log, expected, played),
        )


def _rows(keys: list[str], features: Float32) -> dict[Key, Float32]:
    return dict(zip(keys, features, strict=True))
