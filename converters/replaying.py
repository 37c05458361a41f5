"""Replays a log of raw samples through both entries of the feature path, and compares the bits.

Training pushes a whole recording at once. A device pushes what has arrived, takes turns among its
streams, and starts again in between. Both have to give the same features.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters import event_log
from converters.event_log import SampleLog
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidInput
from edge_core.features import agreement
from edge_core.features import definition as definitions
from edge_core.features.agreement import Agreement, Float32, Key
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream, Windows

PIECES = (1, 7, 64, 3, 250)
"""Samples of one push, taken in turn: single ones, parts of a window, more than one."""
RESTART_EVERY = 13
"""Pushes after which a stream is stored and restored."""

Rows = dict[Key, Float32]
Opened = Callable[[WindowDefinition], FeatureStream]


def parity(bundle: Path, log: Path) -> Agreement:
    """Replay a log with a bundle's own feature definition.

    Raises:
        InvalidInput: the log cannot be read, or its samples are refused.
    """
    definition = definitions.parse(
        folders.read_limited(bundle / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    windows = definitions.of_windows(definition)
    return replay(windows, event_log.read(log, windows.inputs))


def replay(
    definition: WindowDefinition,
    log: SampleLog,
    training: Opened = FeatureStream,
    serving: Opened = FeatureStream,
) -> Agreement:
    """Compare what training computes of a log with what a device computes of it.

    Args:
        definition: of the features.
        log: in order of arrival.
        training: makes the stream that is given everything at once.
        serving: makes the streams that are given pieces.

    Raises:
        InvalidInput: samples that the definition refuses, or not one complete window.
    """
    expected = _whole(definition, log, training)
    found = _piecewise(definition, log, serving)
    if not expected and not found:
        raise InvalidInput(
            f"the log completes no window of {definition.window.samples} samples without a gap"
        )
    return agreement.compare(definition.feature_names, expected, found)


def _whole(definition: WindowDefinition, log: SampleLog, opened: Opened) -> Rows:
    rows: Rows = {}
    names = np.array(log.streams)
    for name in dict.fromkeys(log.streams):
        chosen = names == name
        rows |= _rows(name, opened(definition).push(log.times_us[chosen], log.samples[chosen]))
    return rows


def _piecewise(definition: WindowDefinition, log: SampleLog, opened: Opened) -> Rows:
    """In order of arrival, streams taking turns, each restored now and then."""
    rows: Rows = {}
    streams: dict[str, FeatureStream] = {}
    for count, (name, places) in enumerate(_pieces(log)):
        stream = streams.setdefault(name, opened(definition))
        rows |= _rows(name, stream.push(log.times_us[places], log.samples[places]))
        if count % RESTART_EVERY == 0:
            streams[name] = type(stream).restore(definition, stream.snapshot())
    return rows


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


def show(console: Console, found: Agreement) -> None:
    """A line for each feature that differs, and the sum."""
    table = Table("feature", "compared", "mismatched", "first rows that differ")
    for feature in found.features:
        if feature.mismatched:
            first = "; ".join(
                f"{one.row}: {one.expected!r} trained, {one.found!r} served"
                for one in feature.first
            )
            table.add_row(
                Text(feature.feature), f"{feature.compared}", f"{feature.mismatched}", Text(first)
            )
    if table.row_count:
        console.print(table)
    for what, count, rows in (
        ("missing in serving", found.missing, found.first_missing),
        ("extra in serving", found.extra, found.first_extra),
    ):
        if count:
            console.print(f"{count} rows {what}, such as {'; '.join(rows)}", markup=False)
    differing = sum(bool(feature.mismatched) for feature in found.features)
    console.print(
        f"{found.rows} windows, {len(found.features)} features compared: {differing} features "
        f"differ, {found.missing} rows missing, {found.extra} extra",
        markup=False,
    )
