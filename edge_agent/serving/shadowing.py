"""Lets a shadow answer rows of the past, unseen by applications, while nobody waits."""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role
from edge_agent.serving.predictions import Opinion, Remembered
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.shadow_budget import ShadowBudget
from edge_agent.serving.work import Active
from edge_core import outputs
from edge_core.errors import Unavailable

MAX_SHADOW_BATCHES = 32
MAX_SHADOW_BYTES = 8 * 1024 * 1024
"""Of rows in batches that wait; a single larger one may."""

log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A batch on its way to statistics and shadow."""

    active: Active
    role: Role
    batch: Batch
    remembered: Remembered


class Shadowing:
    """Batches that wait for the shadow; the oldest is dropped first. On the inference thread."""

    def __init__(
        self,
        monitor: Monitor,
        budget: ShadowBudget,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._monitor = monitor
        self._budget = budget
        self._monotonic = monotonic
        self._cpu = cpu
        self._waiting: deque[Answered] = deque()
        self._bytes = 0
        self.dropped = 0
        """Rows that no shadow answered: more came than there was time for."""

    def add(self, answered: Answered) -> None:
        """Keep a batch for later; the oldest goes where too many wait."""
        self._waiting.append(answered)
        self._bytes += _bytes(answered)
        while len(self._waiting) > MAX_SHADOW_BATCHES or (
            self._bytes > MAX_SHADOW_BYTES and len(self._waiting) > 1
        ):
            self._drop(self._next())

    def score_one(self) -> bool:
        """Let its shadow answer one batch; false when none is left, or the budget is spent."""
        if not self._waiting or not self._budget.allows(self._monotonic()):
            return False
        answered = self._next()
        shadow = answered.active.shadow
        if shadow is not None:
            began = self._cpu()
            self._score(shadow, answered)
            self._budget.spend(self._cpu() - began, self._monotonic())
        return True

    def pause(self) -> float | None:
        """Seconds until the next batch may be scored; none where nothing waits for that."""
        return self._budget.pause(self._monotonic()) if self._waiting else None

    def _next(self) -> Answered:
        answered = self._waiting.popleft()
        self._bytes -= _bytes(answered)
        return answered

    def _drop(self, answered: Answered) -> None:
        active, rows = answered.active, len(answered.batch.ids)
        shadow = active.shadow
        if shadow is None:
            return  # nobody compares them any more
        self.dropped += rows
        bins, slices = shadow.layout.confidence_size, answered.batch.slices
        self._monitor.dropped(_role(shadow, active), slices, rows, bins, active.release.ref)

    def _score(self, shadow: LoadedRelease, answered: Answered) -> None:
        """Let the shadow answer the same rows."""
        active, batch = answered.active, answered.batch
        role = _role(shadow, active)
        started = time.perf_counter()
        try:
            features = _features(shadow, active.release, batch)
            found = shadow.answer(batch.raw, features)
            if not np.isfinite(found.logits).all():
                raise Unavailable(f"{shadow.ref.name}: scores are not finite")
        except Exception as error:
            log.warning("shadow %s failed: %s", shadow.ref.name, error)
            bins = shadow.layout.confidence_size
            self._monitor.failed(role, batch.slices, len(batch.ids), bins, active.release.ref)
            return
        elapsed = (time.perf_counter() - started) * 1e6
        probabilities = outputs.probabilities(found.logits)
        opinion = opinion_of(shadow, probabilities)
        own = msgspec.structs.replace(
            batch,
            features=features,
            sampled=(),
            cause=None,
            consumers={},
            cached=0,
            probabilities=probabilities,
            embedding=found.embedding,
            latency_us=np.full(len(batch.ids), elapsed),
        )
        agreements = _agreements(answered.remembered.given, opinion)
        self._monitor.shadowed(role, shadow, active.release.ref, own, agreements)
        answered.remembered.shadowed(opinion)


def _bytes(answered: Answered) -> int:
    batch = answered.batch
    embedding = 0 if batch.embedding is None else batch.embedding.nbytes
    return batch.raw.nbytes + batch.features.nbytes + embedding


def _role(shadow: LoadedRelease, active: Active) -> Role:
    rollout = active.role.rollout
    return Role(release=shadow.ref, target=shadow.target, arm="shadow", rollout=rollout)


def _features(shadow: LoadedRelease, active: LoadedRelease, batch: Batch) -> Float32:
    """The shadow's features of the same raw rows; the same definition has the same features."""
    if shadow.definition_digest == active.definition_digest:
        return batch.features
    problem = active.shadow_problem(shadow)
    if problem:
        raise Unavailable(problem)
    return shadow.evaluator.evaluate(shadow.evaluator.quantise(batch.raw))


def opinion_of(release: LoadedRelease, probabilities: Float32) -> Opinion:
    """What a release says to rows, float32 [rows, classes]."""
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
