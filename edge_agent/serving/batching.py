"""Jobs that are answered together: their rows as one batch, and its answers as theirs again."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Role, joined
from edge_agent.sampling import Sampled
from edge_agent.serving.memory import Rows
from edge_agent.serving.predictions import Opinion, Prediction
from edge_agent.serving.work import Active, Answer, Job

Bool = npt.NDArray[np.bool_]

MAX_BATCH_ROWS = 64


class Made(NamedTuple):
    """A job's rows."""

    job: Job
    rows: Rows


def consumers(group: list[Made]) -> dict[str, int]:
    """Rows by who asked for them."""
    found: dict[str, int] = {}
    for job, rows in group:
        if job.consumer:
            found[job.consumer] = found.get(job.consumer, 0) + len(rows.raw)
    return found


def parts(group: list[Made]) -> Iterable[list[Made]]:
    """Cut a group of jobs into batches of about the largest size; a big job stays whole."""
    part: list[Made] = []
    size = 0
    for made in group:
        if part and size + len(made.rows.raw) > MAX_BATCH_ROWS:
            yield part
            part, size = [], 0
        part.append(made)
        size += len(made.rows.raw)
    yield part


def features(group: list[Made], raw: Float32) -> Float32:
    """Features of all rows, in order; whole windows are computed in one call."""
    found = [made.rows.features for made in group]
    if all(features is None for features in found):
        return _of_windows(group[0].job, raw)
    return joined(
        [
            _of_windows(made.job, made.rows.raw) if features is None else features
            for made, features in zip(group, found, strict=True)
        ]
    )


def _of_windows(job: Job, raw: Float32) -> Float32:
    evaluator = job.active.release.evaluator
    return evaluator.evaluate(evaluator.quantise(raw))


def sampled(group: list[Made]) -> list[Sampled]:
    """The group's sampled rows, by their places in the batch."""
    found: list[Sampled] = []
    start = 0
    for _, rows in group:
        if rows.sampled is not None:
            found.append(rows.sampled._replace(row=start + rows.sampled.row))
        start += len(rows.raw)
    return found


def moments(group: list[Made]) -> tuple[list[int], list[int]] | None:
    """First and last moment of each row, microseconds; none where no row has any."""
    if all(made.rows.times is None for made in group):
        return None
    zeros = [np.zeros(len(made.rows.raw), np.int64) for made in group]
    pairs = [made.rows.times or (zero, zero) for made, zero in zip(group, zeros, strict=True)]
    first, last = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return first.tolist(), last.tolist()


def predictions(
    active: Active,
    role: Role,
    opinion: Opinion,
    batch: Batch,
    cached: Bool | None,
    times: tuple[list[int], list[int]] | None,
) -> list[Prediction]:
    """The answers to a batch; ``cached`` says which rows were known, ``times`` their moments."""
    release, target, runtime = role.release, role.target, active.release.session.runtime
    model, version, digest = release.model, release.version, release.digest
    classes = opinion.classes
    served_by = ["fallback" if role.arm == "fallback" else "model"] * len(batch.ids)
    if cached is not None:
        served_by = ["cache" if known else "model" for known in cached.tolist()]
    first, last = times or ([0] * len(batch.ids), [0] * len(batch.ids))
    return [
        Prediction(
            id=prediction_id,
            model=model,
            version=version,
            digest=digest,
            target=target,
            served_by=by,
            label=classes[index],
            confidence=scores[index],
            scores=scores,
            first_us=first_us,
            last_us=last_us,
            runtime=runtime,
            cause=batch.cause or "",
        )
        for prediction_id, by, index, scores, first_us, last_us in zip(
            batch.ids,
            served_by,
            opinion.predicted.tolist(),
            batch.probabilities.tolist(),
            first,
            last,
            strict=True,
        )
    ]


def split(predictions: list[Prediction], group: list[Made]) -> list[tuple[Job, Answer]]:
    """Each job's own answers."""
    answers: list[tuple[Job, Answer]] = []
    start = 0
    for job, rows in group:
        stop = start + len(rows.raw)
        answers.append((job, predictions[start:stop]))
        start = stop
    return answers
