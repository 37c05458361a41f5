"""The inference thread's work: windows, features, model, answers, statistics, shadow.

Jobs that came together are computed together; a job with bad rows is refused alone.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role, joined
from edge_agent.serving.predictions import Opinion, Prediction, Recent, Remembered
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Active, Answer, Job
from edge_core import outputs
from edge_core.errors import InvalidInput, SerinusError, Unavailable
from edge_core.features.evaluation import Int64

MAX_BATCH_ROWS = 64
MAX_SHADOW_BATCHES = 32

log = logging.getLogger(__name__)


class _Rows(NamedTuple):
    """A job's complete windows."""

    job: Job
    raw: Float32
    features: Float32 | None
    """None while they wait to be computed for the whole batch."""
    times: tuple[Int64, Int64] | None
    """First and last sample of each window, of a stream."""


class _Answered(NamedTuple):
    """A batch on its way to statistics and shadow."""

    active: Active
    role: Role
    batch: Batch
    remembered: Remembered


class Answerer:
    """Computes answers; everything but construction happens on the inference thread."""

    def __init__(self, monitor: Monitor, recent: Recent, now_ms: Callable[[], int]) -> None:
        self._monitor = monitor
        self._recent = recent
        self._now_ms = now_ms
        self._uncounted: list[_Answered] = []
        self._unshadowed: deque[_Answered] = deque(maxlen=MAX_SHADOW_BATCHES)

    def answer(self, jobs: list[Job]) -> list[tuple[Job, Answer]]:
        """Answer jobs in the order in which they came; statistics follow in :meth:`count`."""
        answers: list[tuple[Job, Answer]] = []
        groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[_Rows]] = {}
        for job in jobs:
            rows = self._windows(job)
            if isinstance(rows, SerinusError):
                answers.append((job, rows))
            elif not len(rows.raw):
                answers.append((job, []))
            else:
                key = (id(job.active), tuple(job.slices.items()))
                groups.setdefault(key, []).append(rows)
        for group in groups.values():
            for part in _parts(group):
                answers += self._answer_together(part)
        return answers

    def count(self, *, shadowed: bool) -> None:
        """Count what was answered; applications have their answers already.

        With a shadow, the batches are kept for :meth:`shadow`, the oldest being dropped first.
        """
        uncounted, self._uncounted = self._uncounted, []
        for answered in uncounted:
            active, role, batch, _ = answered
            if shadowed and role.arm != "fallback":
                self._unshadowed.append(answered)
            self._monitor.answered(role, active.release, batch, self._now_ms())

    def shadow(self, shadow: LoadedRelease | None, active: Active | None) -> bool:
        """Let the shadow answer one batch of the past; false when none is left."""
        if not self._unshadowed:
            return False
        answered = self._unshadowed.popleft()
        if shadow is not None and answered.active is active:
            self._score(shadow, answered)
        return True

    def _windows(self, job: Job) -> _Rows | SerinusError:
        """The job's windows; those of a stream come with their features."""
        if job.stream is None:
            return _Rows(job, job.samples, None, None)
        try:
            stream = job.active.stream(job.stream)
            late = stream.late
            windows = stream.push(job.times_us, job.samples)
        except SerinusError as error:
            return error
        except Exception as error:
            return _defect(error)
        if stream.late > late:
            bins = job.active.release.layout.confidence_size
            self._monitor.late(job.active.role, job.slices, stream.late - late, bins)
        times = (windows.first_us, windows.last_us)
        return _Rows(job, windows.raw, windows.features, times)

    def _answer_together(self, group: list[_Rows]) -> list[tuple[Job, Answer]]:
        try:
            raw = joined([rows.raw for rows in group])
            features = _features(group, raw)
        except InvalidInput as error:
            if len(group) == 1:
                return [(group[0].job, error)]
            # One of them is to blame: each alone.
            return [answer for rows in group for answer in self._answer_together([rows])]
        except Exception as error:
            return _failed(group, error)
        try:
            return self._predict(group, raw, features)
        except Exception as error:
            return _failed(group, error)

    def _predict(
        self, group: list[_Rows], raw: Float32, features: Float32
    ) -> list[tuple[Job, Answer]]:
        active, slices = group[0].job.active, group[0].job.slices
        release = active.release
        role, logits = self._logits(active, raw, features, slices)
        probabilities = outputs.probabilities(logits)
        opinion = _opinion(release, probabilities)
        remembered = self._recent.remember(
            opinion, arm=role.arm, rollout=role.rollout, slices=slices
        )
        ids = self._recent.ids(remembered)
        ended = time.perf_counter()
        latency = np.array([ended - rows.job.started for rows in group]) * 1e6
        batch = Batch(
            ids=ids,
            raw=raw,
            features=features,
            probabilities=probabilities,
            latency_us=np.repeat(latency, [len(rows.raw) for rows in group]),
            slices=slices,
        )
        self._uncounted.append(_Answered(active, role, batch, remembered))
        predictions = _predictions(role, opinion, batch, _times(group))
        return _split(predictions, group)

    def _logits(
        self, active: Active, raw: Float32, features: Float32, slices: dict[str, str]
    ) -> tuple[Role, Float32]:
        """Logits of the model, or of the baseline when the model fails."""
        release, rows = active.release, len(features)
        try:
            logits = release.logits(raw, features)
            if np.isfinite(logits).all():
                active.totals.rows += rows
                return active.role, logits
            reason = "scores are not finite"
        except Unavailable as error:
            reason = str(error)
        if not active.totals.errors:
            log.warning("%s fails, its baseline answers: %s", release.ref.name, reason)
        active.totals.errors += rows
        active.totals.fallbacks += rows
        self._monitor.failed(active.role, slices, rows, release.layout.confidence_size)
        role = msgspec.structs.replace(active.role, arm="fallback")
        return role, release.fallback_logits(features)

    def _score(self, shadow: LoadedRelease, answered: _Answered) -> None:
        """Let the shadow answer the same raw windows."""
        active, batch = answered.active, answered.batch
        role = Role(
            release=shadow.ref, target=shadow.target, arm="shadow", rollout=active.role.rollout
        )
        started = time.perf_counter()
        try:
            features = batch.features
            if shadow.definition != active.release.definition:
                features = shadow.evaluator.evaluate(shadow.evaluator.quantise(batch.raw))
            logits = shadow.logits(batch.raw, features)
            if not np.isfinite(logits).all():
                raise Unavailable(f"{shadow.ref.name}: scores are not finite")
        except Exception as error:
            log.warning("shadow %s failed: %s", shadow.ref.name, error)
            bins = shadow.layout.confidence_size
            self._monitor.failed(role, batch.slices, len(batch.ids), bins, active.release.ref)
            return
        elapsed = (time.perf_counter() - started) * 1e6
        probabilities = outputs.probabilities(logits)
        opinion = _opinion(shadow, probabilities)
        own = msgspec.structs.replace(
            batch,
            features=features,
            probabilities=probabilities,
            latency_us=np.full(len(batch.ids), elapsed),
        )
        agreements = _agreements(answered.remembered.given, opinion)
        self._monitor.shadowed(role, shadow, active.release.ref, own, agreements)
        answered.remembered.shadow = opinion


def _parts(group: list[_Rows]) -> Iterable[list[_Rows]]:
    """Cut a group of jobs into batches of about the largest size; a big job stays whole."""
    part: list[_Rows] = []
    size = 0
    for rows in group:
        if part and size + len(rows.raw) > MAX_BATCH_ROWS:
            yield part
            part, size = [], 0
        part.append(rows)
        size += len(rows.raw)
    yield part


def _features(group: list[_Rows], raw: Float32) -> Float32:
    """Features of all rows, in order; whole windows are computed in one call."""
    evaluator = group[0].job.active.release.evaluator
    if all(rows.features is None for rows in group):
        return evaluator.evaluate(evaluator.quantise(raw))
    return joined(
        [
            evaluator.evaluate(evaluator.quantise(rows.raw))
            if rows.features is None
            else rows.features
            for rows in group
        ]
    )


def _opinion(release: LoadedRelease, probabilities: Float32) -> Opinion:
    return Opinion(
        release=release.ref,
        classes=release.classes,
        predicted=probabilities.argmax(axis=1),
        confidence_bins=release.layout.confidence_bins(probabilities.max(axis=1)),
        bins=release.layout.confidence_size,
    )


def _agreements(one: Opinion, other: Opinion) -> int:
    """Rows on which two releases name the same class, whatever its number."""
    if one.classes == other.classes:
        return int((one.predicted == other.predicted).sum())
    pairs = zip(one.predicted, other.predicted, strict=True)
    return sum(one.classes[mine] == other.classes[theirs] for mine, theirs in pairs)


def _times(group: list[_Rows]) -> tuple[list[int], list[int]] | None:
    if all(rows.times is None for rows in group):
        return None
    zeros = [np.zeros(len(rows.raw), np.int64) for rows in group]
    pairs = [rows.times or (zero, zero) for rows, zero in zip(group, zeros, strict=True)]
    first, last = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return first.tolist(), last.tolist()


def _predictions(
    role: Role, opinion: Opinion, batch: Batch, times: tuple[list[int], list[int]] | None
) -> list[Prediction]:
    release, target = role.release, role.target
    model, version, digest = release.model, release.version, release.digest
    served_by = "fallback" if role.arm == "fallback" else "model"
    first, last = times or ([0] * len(batch.ids), [0] * len(batch.ids))
    return [
        Prediction(
            id=prediction_id,
            model=model,
            version=version,
            digest=digest,
            target=target,
            served_by=served_by,
            label=opinion.classes[index],
            confidence=scores[index],
            scores=scores,
            first_us=first_us,
            last_us=last_us,
        )
        for prediction_id, index, scores, first_us, last_us in zip(
            batch.ids,
            opinion.predicted.tolist(),
            batch.probabilities.tolist(),
            first,
            last,
            strict=True,
        )
    ]


def _split(predictions: list[Prediction], group: list[_Rows]) -> list[tuple[Job, Answer]]:
    answers: list[tuple[Job, Answer]] = []
    start = 0
    for rows in group:
        stop = start + len(rows.raw)
        answers.append((rows.job, predictions[start:stop]))
        start = stop
    return answers


def _failed(group: list[_Rows], error: Exception) -> list[tuple[Job, Answer]]:
    """A defect of ours or of a runtime: these requests get an error, the next ones are served."""
    reason = _defect(error)
    return [(rows.job, reason) for rows in group]


def _defect(error: Exception) -> Unavailable:
    log.error("answering failed: %s: %s", type(error).__name__, error)
    return Unavailable(f"the agent could not answer ({type(error).__name__}: {error})")
