"""Replays a log of raw samples through both entries of the feature path.

Training pushes a whole recording at once. A device pushes what has arrived, takes turns among its
streams, and starts again in between. Both have to give the same features.
"""

from collections.abc import Callable, Iterator

import numpy as np

from converters.data.event_log import SampleLog
from converters.replay.replayed import Replayed, Step, compare, unseen
from edge_core.errors import InvalidInput
from edge_core.features.agreement import Float32, Key
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream, Windows

PIECES = (1, 7, 64, 3, 250)
"""Samples of one push, taken in turn: single ones, parts of a window, more than one."""
RESTART_EVERY = 13
"""Pushes after which a stream is stored and restored."""

Rows = dict[Key, Float32]
Opened = Callable[[WindowDefinition], FeatureStream]


def replay(
    definition: WindowDefinition,
    log: SampleLog,
    training: Opened = FeatureStream,
    serving: Opened = FeatureStream,
    step: Step = unseen,
) -> Replayed:
    """Compare what training computes of a log with what a device computes of it.

    Args:
        definition: of the features.
        log: in order of arrival.
        training: makes the stream that is given everything at once.
        serving: makes the streams that are given pieces.
        step: shows what runs.

    Raises:
        InvalidInput: samples that the definition refuses, or not one complete window.
    """
    with step("features as in training"):
        expected = _whole(definition, log, training)
    with step("features as on a device"):
        found, exercised = _piecewise(definition, log, serving)
    if not expected and not found:
        raise InvalidInput(
            f"the log completes no window of {definition.window.samples} samples without a gap"
        )
    return compare("windows", definition.feature_names, expected, found, exercised)


def _whole(definition: WindowDefinition, log: SampleLog, opened: Opened) -> Rows:
    rows: Rows = {}
    names = np.array(log.streams)
    for name in dict.fromkeys(log.streams):
        chosen = names == name
        rows |= _rows(name, opened(definition).push(log.times_us[chosen], log.samples[chosen]))
    return rows


def _piecewise(
    definition: WindowDefinition, log: SampleLog, opened: Opened
) -> tuple[Rows, dict[str, int]]:
    """In order of arrival, streams taking turns, each restored now and then."""
    rows: Rows = {}
    restarts = 0
    streams: dict[str, FeatureStream] = {}
    for count, (name, places) in enumerate(_pieces(log)):
        stream = streams.setdefault(name, opened(definition))
        rows |= _rows(name, stream.push(log.times_us[places], log.samples[places]))
        if count % RESTART_EVERY == 0:
            streams[name] = type(stream).restore(definition, stream.snapshot())
            restarts += 1
    exercised = {
        "late samples": sum(stream.late for stream in streams.values()),
        "gaps": sum(stream.gaps for stream in streams.values()),
    }
    if any(entry.null_policy == "skip" for entry in definition.inputs):
        exercised["missing samples"] = int(np.isnan(log.samples).sum())
    return rows, exercised | {"restarts": restarts}


def _pieces(log: SampleLog) -> Iterator[tuple[str, list[int]]]:
    """Places of samples that are pushed together; a stream's come in order."""
    waiting: dict[str, list[int]] = {}
    turns: dict[str, int] = {}
    for place, name in enumerate(log.streams):
        held = waiting.setdefault(name, [])
        held.append(place)
        if len(held) >= PIECES[turns.get(name, 0) % len(PIECES)]:
            turns[name] = turns.get(name, 0) + 1
            yield name, waiting.pop(name)
    yield from ((name, held) for name, held in waiting.items() if held)


def _rows(name: str, windows: Windows) -> Rows:
    return {
        f"{name} {last}": features
        for last, features in zip(windows.last_us.tolist(), windows.features, strict=True)
    }
