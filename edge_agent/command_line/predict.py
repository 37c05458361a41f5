"""``serinus-agent predict``: a file's rows through the features and the model of a bundle.

The bytes of features and scores are those that a serving agent computes of the same rows: the same
evaluator, the same session, the same softmax.
"""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.command_line import input_files
from edge_agent.inference import target_choice
from edge_agent.serving.release import LoadedRelease
from edge_core import durable, outputs
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidInput, Unavailable
from edge_core.features import playback
from edge_core.features.logs import Events, Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BATCH_ROWS = 64
"""As many as the agent answers together."""
SCREEN = Path("-")


class Answers(NamedTuple):
    """Answers to rows that came together."""

    streams: Sequence[str]
    """Of each row; empty texts where the file has one stream or none."""
    first_us: Sequence[int]
    last_us: Sequence[int]
    """0 where the file gave whole windows."""
    scores: Float32
    """float32 [rows, classes]."""
    served_by: str


def predict(
    bundle: Path,
    source: Path,
    *,
    target: str | None,
    events: Sequence[str],
    output: Path,
    form: Literal["json", "csv"],
    now_us: int,
) -> int:
    """Answer a file; return how many rows it had.

    Raises:
        InvalidBundle: a file is missing or altered, or the bundle has no such variant.
        InvalidInput: the file does not hold what the model takes.
    """
    manifest = folders.read(bundle)
    folders.check(bundle, manifest)
    release = LoadedRelease.open(bundle, target_choice.chosen(manifest, target))
    found = list(answers(release, source, events, now_us))
    text = _table(release, found) if form == "csv" else _lines(release, found)
    if output == SCREEN:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        _write(output, text)
    return sum(len(part.scores) for part in found)


def answers(
    release: LoadedRelease, source: Path, events: Sequence[str], now_us: int
) -> Iterator[Answers]:
    """Answer a file's rows in order. Raises as :func:`predict`.

    Args:
        release: that answers.
        source: file of windows, samples or requests.
        events: each ``STREAM=FILE``.
        now_us: when requests without a time are asked.
    """
    definition = release.definition
    try:
        if isinstance(definition, RequestDefinition):
            yield from _of_requests(release, definition, source, events, now_us)
        elif events:
            raise InvalidInput(f"{release.ref.name} answers sensor windows and takes no --events")
        else:
            yield from _of_windows(release, definition, source)
    except InvalidInput as error:
        named = str(source) in str(error) or "--events" in str(error)
        raise error if named else InvalidInput(f"{source}: {error}") from error


def _of_windows(
    release: LoadedRelease, definition: WindowDefinition, source: Path
) -> Iterator[Answers]:
    given = input_files.windows(source, definition)
    evaluator = release.evaluator
    if isinstance(given, Mapping):
        made = 0
        for name, samples in given.items():
            stream = FeatureStream(definition, evaluator)
            found = stream.push(samples.times_us, samples.values)
            made += len(found.raw)
            yield from _answered(
                release, found.raw, found.features, name, found.first_us, found.last_us
            )
        if not made:
            window = definition.window
            raise InvalidInput(
                f"{source} completes no window; one has {window.samples} samples that are at most "
                f"{window.max_gap_ms} ms apart, in order of {input_files.TIME}"
            )
        return
    for start in range(0, len(given), BATCH_ROWS):
        raw = given[start : start + BATCH_ROWS]
        none = np.zeros(len(raw), np.int64)
        features = evaluator.evaluate(evaluator.quantise(raw))
        yield from _answered(release, raw, features, input_files.ONE_STREAM, none, none)


def _of_requests(
    release: LoadedRelease,
    definition: RequestDefinition,
    source: Path,
    events: Sequence[str],
    now_us: int,
) -> Iterator[Answers]:
    request = input_files.requests(source, definition, now_us)
    log = Log(_events(definition, events), request)
    features = playback.play(definition, log).features
    times = np.asarray(request[definition.request.time], np.int64)
    none = np.zeros((len(features), *definition.raw_shape), np.float32)
    yield from _answered(release, none, features, input_files.ONE_STREAM, times, times)


def _events(definition: RequestDefinition, events: Sequence[str]) -> dict[str, Events]:
    streams = {stream.name: stream for stream in definition.streams}
    found: dict[str, Events] = {}
    for given in events:
        name, _, file = given.partition("=")
        if not file:
            raise InvalidInput(f"--events {given[:64]} is not STREAM=FILE")
        if name not in streams:
            known = ", ".join(streams) or "none"
            raise InvalidInput(f"--events {given[:64]}: unknown stream; the model has {known}")
        if name in found:
            raise InvalidInput(f"--events {name} is given twice; put its events into one file")
        found[name] = input_files.events(Path(file), streams[name])
    return found


def _answered(
    release: LoadedRelease,
    raw: Float32,
    features: Float32,
    stream: str,
    first_us: Int64,
    last_us: Int64,
) -> Iterator[Answers]:
    """Answer rows whose features are computed, by the baseline where the runtime fails."""
    for start in range(0, len(features), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        logits, served_by = _logits(release, raw[part], features[part])
        yield Answers(
            streams=[stream] * len(logits),
            first_us=first_us[part].tolist(),
            last_us=last_us[part].tolist(),
            scores=outputs.probabilities(logits),
            served_by=served_by,
        )


def _logits(release: LoadedRelease, raw: Float32, features: Float32) -> tuple[Float32, str]:
    try:
        logits = release.logits(raw, features)
        if np.isfinite(logits).all():
            return logits, "model"
    except Unavailable as error:
        print(f"serinus-agent: the baseline answers, since {error}", file=sys.stderr)
    return release.fallback_logits(features), "fallback"


def _records(release: LoadedRelease, found: Sequence[Answers]) -> Iterator[dict[str, Any]]:
    """A row's answer as names and values, in order; all rows have the same names."""
    several = any(name for part in found for name in part.streams)
    timed = any(moment for part in found for moment in part.last_us)
    row = 0
    for part in found:
        predicted = part.scores.argmax(axis=1).tolist()
        for place, scores in enumerate(part.scores.tolist()):
            label = predicted[place]
            record: dict[str, Any] = {"row": row}
            if several:
                record["stream"] = part.streams[place]
            if timed:
                record["first_us"] = part.first_us[place]
                record["last_us"] = part.last_us[place]
            record["label"] = release.classes[label]
            record["confidence"] = scores[label]
            record["scores"] = dict(zip(release.classes, scores, strict=True))
            record["served_by"] = part.served_by
            record["release"] = release.ref.name
            record["digest"] = release.ref.digest
            record["target"] = release.target
            record["runtime"] = release.session.runtime
            yield record
            row += 1


def _lines(release: LoadedRelease, found: Sequence[Answers]) -> str:
    encoder = msgspec.json.Encoder()
    lines = [encoder.encode(record).decode() + "\n" for record in _records(release, found)]
    return "".join(lines)


def _table(release: LoadedRelease, found: Sequence[Answers]) -> str:
    """With a column for each class, ``score.CLASS``."""
    content = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for record in _records(release, found):
        scores = record.pop("scores")
        record |= {f"score.{name}": score for name, score in scores.items()}
        if writer is None:
            writer = csv.DictWriter(content, list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow(record)
    return content.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        durable.write_bytes(path, text.encode())
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
