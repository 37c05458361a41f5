"""The inference thread's work: rows, features, model, answers, statistics.

Memories take jobs in the order in which they came; the model then answers together what came
together. A job with bad rows is refused alone.
"""

import logging
import time
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role, joined
from edge_agent.serving import batching
from edge_agent.serving.asking import Explain, Remember
from edge_agent.serving.batching import Made
from edge_agent.serving.explanations import Explanations
from edge_agent.serving.memory import Rows
from edge_agent.serving.policy import Policy
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.serving.predictions import Prediction, Recent
from edge_agent.serving.release import Parted
from edge_agent.serving.shadow_budget import ShadowBudget
from edge_agent.serving.shadowing import Answered, Shadowing, opinion_of
from edge_agent.serving.tally import Served, Tally
from edge_agent.serving.work import Active, Answer, Job, Remembered
from edge_core import outputs
from edge_core.errors import DeadlineExceeded, InvalidInput, SerinusError, Unavailable
from edge_core.features.request_evaluation import Observed
from edge_core.messages.telemetry import Cause

Bool = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)


class Answerer:
    """Computes answers; everything but construction happens on the inference thread."""

    def __init__(
        self,
        monitor: Monitor,
        recent: Recent,
        now_us: Callable[[], int],
        tally: Tally,
        prediction_log: PredictionLog | None = None,
        *,
        policy: Policy,
        max_explained_rows: int,
        shadow_cpu_share: float = 1.0,
    ) -> None:
        self._monitor = monitor
        self._tally = tally
        self.alive: Callable[[], None] = lambda: None
        """Called after each batch, of which a turn may have many."""
        self.explanations = Explanations(max_explained_rows)
        self._policy = policy
        self._recent = recent
        self._now_us = now_us
        self._log = prediction_log
        self._uncounted: list[Answered] = []
        self.shadowing = Shadowing(monitor, ShadowBudget(shadow_cpu_share, time.monotonic()))

    def answer(self, jobs: list[Job]) -> list[tuple[Job, Answer]]:
        """Answer jobs in the order in which they came; statistics follow in :meth:`count`."""
        try:
            return self._answers(jobs)
        except Exception as error:  # a defect of ours must not end the inference thread
            return [(job, _defect(error)) for job in jobs]

    def _answers(self, jobs: list[Job]) -> list[tuple[Job, Answer]]:
        answers: list[tuple[Job, Answer]] = []
        groups: dict[tuple[int, tuple[tuple[str, str], ...] | None], list[Made]] = {}
        incomplete: list[Made] = []
        now = time.perf_counter()
        for job in jobs:
            rows = _expired(job) if job.deadline and job.deadline < now else self._take(job)
            if isinstance(job.work, Explain) and isinstance(rows, Rows):
                self.explanations.add(job, job.work, rows)
            elif not isinstance(rows, Rows):
                answers.append((job, rows))
            elif not len(rows.raw):
                answers.append((job, []))
            elif rows.incomplete is not None:
                incomplete.append(Made(job, rows))
            else:
                active, slices = job.active, job.slices
                own = None if slices is active.slices else tuple(slices.items())
                groups.setdefault((id(active), own), []).append(Made(job, rows))
        for group in groups.values():
            for part in batching.parts(group):
                answers += self._answer_together(part)
                self.alive()
        for made in incomplete:
            answers += self._answer_incomplete(made)
            self.alive()
        return answers

    def count(self) -> None:
        """Count what was answered; applications have their answers already.

        Where a shadow runs, the batches are kept for :meth:`shadow`; the oldest are dropped first.
        """
        uncounted, self._uncounted = self._uncounted, []
        for answered in uncounted:
            try:
                self._count(answered)
            except Exception as error:  # a defect of ours costs this batch's counts, no others
                log.error("counting failed: %s: %s", type(error).__name__, error)
        if self._log is not None:
            self._log.flush()

    def _count(self, answered: Answered) -> None:
        active, role, batch, remembered = answered
        at_us = self._now_us()
        if active.shadow is not None and role.arm != "fallback":
            self.shadowing.add(answered)
        self._monitor.answered(role, active.release, batch, at_us // 1000)
        self._tally_up(role, batch)
        if self._log is not None:
            self._log.note(at_us, role, active.release.session.runtime, remembered, batch)

    def _tally_up(self, role: Role, batch: Batch) -> None:
        release = role.release
        served_by = "fallback" if role.arm == "fallback" else "model"
        served = Served(release.model, release.version, served_by)
        self._tally.answered(served, batch.latency_us, cached=batch.cached)
        for consumer, rows in batch.consumers.items():
            self._tally.consumed(consumer, release.model, rows)

    def shadow(self) -> bool:
        """Let a shadow answer one batch of the past; false when none is left for now."""
        return self.shadowing.score_one()

    def _take(self, job: Job) -> Rows | Answer:
        """What the job's memory makes of it."""
        memory = job.active.memory
        try:
            if isinstance(job.work, Explain):
                self.explanations.check(job.work)
                return memory.peek(job.work.of, job.came_us)
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
            self._tally.late(job.active.release.ref, late)
            bins = job.active.release.layout.confidence_size
            self._monitor.late(job.active.role, job.slices, late, bins)
        return made

    def _answer_together(self, group: list[Made]) -> list[tuple[Job, Answer]]:
        """Rows of one release and slice as one batch."""
        try:
            raw = joined([made.rows.raw for made in group])
            features = batching.features(group, raw)
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
                return self._failed(group, defect)
            return self._answer_incomplete(Made(job, marked))
        except Exception as error:
            return self._failed(group, error)

    def _answer_incomplete(self, made: Made) -> list[tuple[Job, Answer]]:
        """The model answers the rows that are complete, the baseline the others."""
        job, rows = made
        assert rows.incomplete is not None
        found: list[Prediction] = [None] * len(rows.raw)  # type: ignore[list-item]  # filled below
        try:
            for lacking in (False, True):
                places = np.flatnonzero(rows.incomplete == lacking)
                if not len(places):
                    continue
                part = Made(job, rows.taken(places))
                features = batching.features([part], part.rows.raw)
                [(_, answer)] = self._predict([part], part.rows.raw, features, incomplete=lacking)
                assert isinstance(answer, list)
                for place, prediction in zip(places.tolist(), answer, strict=True):
                    found[place] = prediction
        except Exception as error:
            return self._failed([made], error)
        return [(job, found)]

    def _predict(
        self, group: list[Made], raw: Float32, features: Float32, *, incomplete: bool = False
    ) -> list[tuple[Job, Answer]]:
        active, slices = group[0].job.active, group[0].job.slices
        release = active.release
        role, answered, cached, cause = self._ask(active, raw, features, slices, incomplete)
        probabilities = outputs.probabilities(answered.logits)
        opinion = opinion_of(release, probabilities)
        remembered = self._recent.remember(
            opinion, arm=role.arm, rollout=role.rollout, slices=slices, target=release.target
        )
        ids = self._recent.ids(remembered)
        ended = time.perf_counter()
        latency = np.array([ended - made.job.started for made in group]) * 1e6
        if len(raw) > len(group):
            latency = np.repeat(latency, [len(made.rows.raw) for made in group])
        batch = Batch(
            ids=ids,
            raw=raw,
            features=features,
            probabilities=probabilities,
            embedding=answered.embedding,
            latency_us=latency,
            slices=slices,
            sampled=batching.sampled(group),
            consumers=batching.consumers(group),
            cached=0 if cached is None else int(cached.sum()),
            cause=cause,
        )
        self._uncounted.append(Answered(active, role, batch, remembered))
        times = batching.moments(group)
        predictions = batching.predictions(active, role, opinion, batch, cached, times)
        return batching.split(predictions, group)

    def _ask(
        self,
        active: Active,
        raw: Float32,
        features: Float32,
        slices: dict[str, str],
        incomplete: bool,
    ) -> tuple[Role, Parted, Bool | None, Cause | None]:
        """What the model gives and which rows were cached, or what the baseline does and why."""
        release, rows = active.release, len(features)
        cause = self._policy.instead(release, incomplete=incomplete)
        if cause is None:
            try:
                given = release.given(raw, features)
                if active.cache is None:
                    answers, cached = release.session.run(given), None
                else:
                    answers, cached = active.cache.answer(given, release.session.run)
                    active.totals.cached += int(cached.sum())
                answered = release.parted(answers)
                if np.isfinite(answered.logits).all():
                    if cached is None or not cached.all():  # else the model was not asked
                        self._policy.answered(release)
                    active.totals.rows += rows
                    return active.role, answered, cached, None
                reason = "scores are not finite"
            except Unavailable as error:
                reason = str(error)
            if not active.totals.errors:
                log.warning("%s fails, its baseline answers: %s", release.ref.name, reason)
            self._policy.failed(release, reason)
            cause = "error"
        self._count_instead(active, cause, slices, rows)
        role = msgspec.structs.replace(active.role, arm="fallback")
        return role, Parted(release.fallback_logits(features), None), None, cause

    def _failed(self, group: list[Made], error: Exception) -> list[tuple[Job, Answer]]:
        """A defect of ours or of a runtime: these requests get an error, the next are served."""
        active, slices = group[0].job.active, group[0].job.slices
        rows = sum(len(made.rows.raw) for made in group)
        active.totals.errors += rows
        self._tally.failed(active.release.ref, rows)
        self._monitor.failed(active.role, slices, rows, active.release.layout.confidence_size)
        reason = _defect(error)
        return [(made.job, reason) for made in group]

    def _count_instead(
        self, active: Active, cause: Cause, slices: dict[str, str], rows: int
    ) -> None:
        """Count rows that the baseline answers."""
        active.totals.fallbacks += rows
        self._policy.rows[cause] += rows
        if cause == "error":
            self._tally.failed(active.release.ref, rows)
        if cause in ("error", "breaker"):  # the model's fault, and so judged in a rollout
            active.totals.errors += rows
            bins = active.release.layout.confidence_size
            self._monitor.failed(active.role, slices, rows, bins)


def _expired(job: Job) -> DeadlineExceeded:
    late = (time.perf_counter() - (job.deadline or 0.0)) * 1e3
    return DeadlineExceeded(
        f"the deadline passed {late:.1f} ms before the model was free; nothing was computed"
    )


def _refused(observed: Observed) -> int:
    """Events that came for nothing."""
    dropped = observed.dropped
    return dropped.duplicate + dropped.expired + dropped.ahead


def _defect(error: Exception) -> Unavailable:
    log.error("answering failed: %s: %s", type(error).__name__, error)
    return Unavailable(f"the agent could not answer ({type(error).__name__}: {error})")
