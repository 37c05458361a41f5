"""Lets a shadow answer rows of the past, unseen by applications, while nobody waits."""

import logging
import time
from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role
from edge_agent.serving.predictions import Opinion, Remembered
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Active
from edge_core import outputs
from edge_core.errors import Unavailable

MAX_SHADOW_BATCHES = 32

log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A batch on its way to statistics and shadow."""

    active: Active
    role: Role
    batch: Batch
    remembered: Remembered


class Shadowing:
    """Batches that wait for the shadow; the oldest is dropped first. On the inference thread."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._waiting: deque[Answered] = deque(maxlen=MAX_SHADOW_BATCHES)

    def add(self, answered: Answered) -> None:
        """Keep a batch for later."""
        self._waiting.append(answered)

    def score_one(self) -> bool:
        """Let its shadow answer one batch; false when none is left."""
        if not self._waiting:
            return False
        answered = self._waiting.popleft()
        shadow = answered.active.shadow
        if shadow is not None:
            self._score(shadow, answered)
        return True

    def _score(self, shadow: LoadedRelease, answered: Answered) -> None:
        """Let the shadow answer the same rows."""
        active, batch = answered.active, answered.batch
        role = Role(
            release=shadow.ref, target=shadow.target, arm="shadow", rollout=active.role.rollout
        )
        started = time.perf_counter()
        try:
            features = _features(shadow, active.release, batch)
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
        opinion = opinion_of(shadow, probabilities)
        own = msgspec.structs.replace(
            batch,
            features=features,
            sampled=(),
            probabilities=probabilities,
            latency_us=np.full(len(batch.ids), elapsed),
        )
        agreements = _agreements(answered.remembered.given, opinion)
        self._monitor.shadowed(role, shadow, active.release.ref, own, agreements)
        answered.remembered.shadow = opinion


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
