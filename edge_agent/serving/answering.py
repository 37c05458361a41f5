"""The inference thread's work: rows, features, model, answers, statistics.

Memories take jobs in the order in which they came; the model then answers together what came
together. A job with bad rows is refused alone.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role, joined
from edge_agent.sampling import Sampled
from edge_agent.serving.asking import Remember
from edge_agent.serving.memory import Rows
from edge_agent.serving.policy import Policy
from edge_agent.serving.predictions import Opinion, Prediction, Recent
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.shadow_budget import ShadowBudget
from edge_agent.serving.shadowing import Answered, Shadowing, opinion_of
from edge_agent.serving.work import Active, Answer, Job, Remembered
from edge_core import outputs
from edge_core.errors import InvalidInput, SerinusError, Unavailable
from edge_core.features.request_evaluation import Observed
from edge_core.messages.telemetry import Cause

MAX_BATCH_ROWS = 64

log = logging.getLogger(__name__)


class _Made(NamedTuple):
    """A job's rows."""

    job: Job
    rows: Rows


class Answerer:
    """Computes answers; everything but construction happens on the inference thread."""

    def __init__(
        self,
        monitor: Monitor,
        recent: Recent,
        now_us: Callable[[], int],
        policy: Policy,
        shadow_cpu_share: float = 1.0,
    ) -> None:
        self._monitor = monitor
        self._policy = policy
        self._recent = recent
        self._now_us = now_us
        self._uncounted: list[Answered] = []
        self.shadowing = Shadowing(monitor, ShadowBudget(shadow_cpu_share, time.monotonic()))

    def answer(self, jobs: list[Job]) -> list[tuple[Job, Answer]]:
        """Answer jobs in the order in which they came; statistics follow in :meth:`count`."""
        answers: list[tuple[Job, Answer]] = []
        groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[_Made]] = {}
        incomplete: list[_Made] = []
        for job in jobs:
            rows = self._take(job)
            if not isinstance(rows, Rows):
                answers.append((job, rows))
            elif not len(rows.raw):
                answers.append((job, []))
            elif rows.incomplete is not None:
                incomplete.append(_Made(job, rows))
            else:
                key = (id(job.active), tuple(job.slices.items()))
                groups.setdefault(key, []).append(_Made(job, rows))
        for group in groups.values():
            for part in _parts(group):
                answers += self._answer_together(part)
        for made in incomplete:
            answers += self._answer_incomplete(made)
        return answers

    def count(self, shadow: LoadedRelease | None) -> None:
        """Count what was answered; applications have their answers already.

        With a shadow, the batches are kept for :meth:`shadow`, the oldest being dropped first.
        """
        uncounted, self._uncounted = self._uncounted, []
        for answered in uncounted:
            active, role, batch, _ = answered
            if shadow is not None and role.arm != "fallback":
                self.shadowing.add(answered, shadow)
            self._monitor.answered(role, active.release, batch, self._now_us() // 1000)

    def shadow(self, shadow: LoadedRelease | None, active: Active | None) -> bool:
        """Let the shadow answer one batch of the past; false when none is left for now."""
        return self.shadowing.score_one(shadow, active)

    def _take(self, job: Job) -> Rows | Answer:
        """What the job's memory makes of it."""
        memory = job.active.memory
        try:
            if isinstance(job.work, Remember):
                digest = job.active.release.definition_digest
                return Remembered(digest, memory.snapshot())
            made = memory.take(job.work, job.came_us, self._monitor.sampling)
        except SerinusError as error:
            return error
        except Exception as error:
            return _defect(error)
        late = made.late if isinstance(made, Rows) else _refused(made)
        if late:
            bins = job.active.release.layout.confidence_size
            self._monitor.late(job.active.role, job.slices, late, bins)
        return made

    def _answer_together(self, group: list[_Made]) -> list[tuple[Job, Answer]]:
        try:
            raw = joined([made.rows.raw for made in group])
            features = _features(group, raw)
            return self._predict(group, raw, features)
        except InvalidInput as error:
            if len(group) > 1:  # one of them is to blame: each alone
                return [answer for made in group for answer in self._answer_together([made])]
            job, rows = group[0]
            try:
                marked = job.active.memory.incomplete(rows)
            except InvalidInput:
                return [(job, error)]
            except Exception as defect:
                return _failed(group, defect)
            return self._answer_incomplete(_Made(job, marked))
        except Exception as error:
            return _failed(group, error)

    def _answer_incomplete(self, made: _Made) -> list[tuple[Job, Answer]]:
        """The model answers the rows that are complete, the baseline the others."""
        job, rows = made
        assert rows.incomplete is not None
        found: list[Prediction] = [None] * len(rows.raw)  # type: ignore[list-item]  # filled below
        try:
            for lacking in (False, True):
                places = np.flatnonzero(rows.incomplete == lacking)
                if len(places):
                    part = _Made(job, rows.taken(places))
                    [(_, answer)] = self._answer_part(part, incomplete=lacking)
                    if not isinstance(answer, list):
                        return [(job, answer)]
                    for place, prediction in zip(places.tolist(), answer, strict=True):
                        found[place] = prediction
        except Exception as error:
            return _failed([made], error)
        return [(job, found)]

    def _answer_part(self, made: _Made, *, incomplete: bool) -> list[tuple[Job, Answer]]:
        features = made.rows.features
        if features is None:
            features = _of_windows(made.job, made.rows.raw)
        return self._predict([made], made.rows.raw, features, incomplete=incomplete)

    def _predict(
        self, group: list[_Made], raw: Float32, features: Float32, *, incomplete: bool = False
    ) -> list[tuple[Job, Answer]]:
        active, slices = group[0].job.active, group[0].job.slices
        release = active.release
        role, logits, cause = self._logits(active, raw, features, slices, incomplete)
        probabilities = outputs.probabilities(logits)
        opinion = opinion_of(release, probabilities)
        remembered = self._recent.remember(
            opinion, arm=role.arm, rollout=role.rollout, slices=slices
        )
        ids = self._recent.ids(remembered)
        ended = time.perf_counter()
        latency = np.array([ended - made.job.started for made in group]) * 1e6
        batch = Batch(
            ids=ids,
            raw=raw,
            features=features,
            probabilities=probabilities,
            latency_us=np.repeat(latency, [len(made.rows.raw) for made in group]),
            slices=slices,
            sampled=_sampled(group),
            cause=cause,
        )
        self._uncounted.append(Answered(active, role, batch, remembered))
        predictions = _predictions(role, opinion, batch, cause, _times(group))
        return _split(predictions, group)

    def _logits(
        self,
        active: Active,
        raw: Float32,
        features: Float32,
        slices: dict[str, str],
        incomplete: bool,
    ) -> tuple[Role, Float32, Cause | None]:
        """Logits of the model, or of the baseline and why."""
        release, rows = active.release, len(features)
        cause = self._policy.instead(release, incomplete=incomplete)
        if cause is None:
            try:
                logits = release.logits(raw, features)
                if np.isfinite(logits).all():
                    self._policy.answered(release)
                    active.totals.rows += rows
                    return active.role, logits, None
                reason = "scores are not finite"
            except Unavailable as error:
                reason = str(error)
            if not active.totals.errors:
                log.warning("%s fails, its baseline answers: %s", release.ref.name, reason)
            self._policy.failed(release, reason)
            cause = "error"
        self._count_instead(active, cause, slices, rows)
        role = msgspec.structs.replace(active.role, arm="fallback")
        return role, release.fallback_logits(features), cause

    def _count_instead(
        self, active: Active, cause: Cause, slices: dict[str, str], rows: int
    ) -> None:
        """Count rows that the baseline answers."""
        active.totals.fallbacks += rows
        self._policy.rows[cause] += rows
        if cause in ("error", "breaker"):  # the model's fault, and so judged in a rollout
            active.totals.errors += rows
            bins = active.release.layout.confidence_size
            self._monitor.failed(active.role, slices, rows, bins)


def _refused(observed: Observed) -> int:
    """Events that came for nothing."""
    dropped = observed.dropped
    return dropped.duplicate + dropped.expired + dropped.ahead


def _parts(group: list[_Made]) -> Iterable[list[_Made]]:
    """Cut a group of jobs into batches of about the largest size; a big job stays whole."""
    part: list[_Made] = []
    size = 0
    for made in group:
        if part and size + len(made.rows.raw) > MAX_BATCH_ROWS:
            yield part
            part, size = [], 0
        part.append(made)
        size += len(made.rows.raw)
    yield part


def _features(group: list[_Made], raw: Float32) -> Float32:
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


def _sampled(group: list[_Made]) -> list[Sampled]:
    """The group's sampled rows, by their places in the batch."""
    found: list[Sampled] = []
    start = 0
    for _, rows in group:
        if rows.sampled is not None:
            found.append(rows.sampled._replace(row=start + rows.sampled.row))
        start += len(rows.raw)
    return found


def _times(group: list[_Made]) -> tuple[list[int], list[int]] | None:
    if all(made.rows.times is None for made in group):
        return None
    zeros = [np.zeros(len(made.rows.raw), np.int64) for made in group]
    pairs = [made.rows.times or (zero, zero) for made, zero in zip(group, zeros, strict=True)]
    first, last = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return first.tolist(), last.tolist()


def _predictions(
    role: Role,
    opinion: Opinion,
    batch: Batch,
    cause: Cause | None,
    times: tuple[list[int], list[int]] | None,
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
            cause=cause or "",
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


def _split(predictions: list[Prediction], group: list[_Made]) -> list[tuple[Job, Answer]]:
    answers: list[tuple[Job, Answer]] = []
    start = 0
    for job, rows in group:
        stop = start + len(rows.raw)
        answers.append((job, predictions[start:stop]))
        start = stop
    return answers


def _failed(group: list[_Made], error: Exception) -> list[tuple[Job, Answer]]:
    """A defect of ours or of a runtime: these requests get an error, the next ones are served."""
    reason = _defect(error)
    return [(made.job, reason) for made in group]


def _defect(error: Exception) -> Unavailable:
    log.error("answering failed: %s: %s", type(error).__name__, error)
    return Unavailable(f"the agent could not answer ({type(error).__name__}: {error})")
