"""Looks at a newly active release until the rules of probation have a verdict."""

import numpy as np

from edge_agent.conduct import Conduct
from edge_agent.config import Update
from edge_agent.ports import Behaviour, Clock, Server
from edge_agent.serving.release import LoadedRelease
from edge_agent.update import health
from edge_agent.update.health import Limits, Outcome, Scores
from edge_core.messages.telemetry import Probation

MAX_VERDICT = 500


class TrialWatch:
    """One trial, from now on; what the release answered earlier does not count."""

    def __init__(
        self,
        *,
        server: Server,
        behaviour: Behaviour,
        clock: Clock,
        settings: Update,
        release: LoadedRelease,
        before: LoadedRelease | None,
        restarts: int,
    ) -> None:
        self._server = server
        self._behaviour = behaviour
        self._clock = clock
        self._limits = Limits(
            seconds=settings.probation_seconds,
            rows=settings.probation_rows,
            max_error_share=settings.max_error_share,
            max_latency_factor=settings.max_latency_factor,
            max_divergence=settings.max_divergence,
        )
        self._release = release
        self._restarts = restarts
        self._earlier = behaviour.conduct(release.ref)
        lately = behaviour.conduct(before.ref, lately=True) if before is not None else None
        self._before = _scores(before, lately) if before is not None and lately else None
        self._began = clock.monotonic()
        self._passed_at: float | None = None
        self.reported = Probation(passed=False, restarts=restarts)
        """What the fleet is told."""

    def judge(self) -> tuple[Outcome, str]:
        """What the rules say now."""
        totals = self._server.totals
        conduct = self._behaviour.conduct(self._release.ref).since(self._earlier)
        trial = health.Trial(
            elapsed=self._clock.monotonic() - self._began,
            rows=totals.rows,
            errors=totals.errors,
            restarts=self._restarts,
            budget_us=self._release.manifest.budget.latency_us,
            scores=_scores(self._release, conduct),
            before=self._before,
        )
        return health.probation(trial, self._limits)

    def passed(self, why: str) -> bool:
        """Note that the device's own verdict is good; whether that is news."""
        if self._passed_at is not None:
            return False
        self._passed_at = self._clock.monotonic()
        totals = self._server.totals
        self.reported = Probation(
            passed=True,
            rows=totals.rows,
            errors=totals.errors,
            restarts=self._restarts,
            verdict=why[:MAX_VERDICT],
        )
        return True

    def waited(self) -> float:
        """Seconds since the device's own verdict; 0 before."""
        return 0.0 if self._passed_at is None else self._clock.monotonic() - self._passed_at


def _scores(release: LoadedRelease, conduct: Conduct) -> Scores:
    confidence, predicted = release.reference.channels[-2:]
    return Scores(
        classes=release.classes,
        conduct=conduct,
        expected_predicted=np.array(predicted.counts[1:-2], np.int64),
        expected_confidence=np.array(confidence.counts, np.int64),
    )
