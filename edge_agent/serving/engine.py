"""Serves models: takes requests, lets the inference thread answer all that came as one batch.

Applications on the socket are read by the inference thread itself; everything else asks here, on
the event loop.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable

import numpy.typing as npt

from edge_agent.monitor import Monitor
from edge_agent.serving import admission
from edge_agent.serving.admission import Admitted
from edge_agent.serving.answering import Answerer
from edge_agent.serving.asking import Occlusion, Remember
from edge_agent.serving.breaker import Limits
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.lane import Lane
from edge_agent.serving.loop_queue import LoopQueue
from edge_agent.serving.policy import Policy
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.serving.predictions import Prediction, Recent
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.remembering import Remembering
from edge_agent.serving.tally import Tally
from edge_agent.serving.thread import InferenceThread
from edge_agent.serving.work import (
    PLAIN,
    Active,
    Done,
    Job,
    Remembered,
    Terms,
    Totals,
)
from edge_core.errors import InvalidInput, Overloaded, SerinusError, Unavailable, UnknownModel
from edge_core.features.columns import Given
from edge_core.features.request_evaluation import Observed
from edge_core.messages.telemetry import Arm

__all__ = ["Engine", "Totals"]

MAX_RECENT = 20_000


class Engine:
    """Serves models, each with an active release, perhaps a shadow, and a baseline behind both.

    To be made and called on the event loop, but for :meth:`admit`, :meth:`serving` and
    :meth:`feedback`, which the inference thread calls as well. What does not name a model speaks
    of the first one.
    """

    def __init__(
        self,
        monitor: Monitor,
        *,
        slices: dict[str, str],
        max_queue_rows: int,
        now_us: Callable[[], int],
        token: str | None = None,
        cache_rows: int = 0,
        prediction_log: PredictionLog | None = None,
        policy: Policy | None = None,
        shadow_cpu_share: float = 1.0,
        hang_seconds: float = math.inf,
    ) -> None:
        """Start the inference thread.

        Args:
            monitor: counts what is answered.
            slices: the device's own slices; a request may name others.
            max_queue_rows: rows that may wait; more are refused as ``Overloaded``. As many may
                wait to be explained, beside them.
            now_us: UTC clock in microseconds.
            token: makes prediction ids unique among the device's processes; drawn if none.
            cache_rows: answers that each model keeps for rows that come again; 0 for none.
            policy: says when baselines answer; none: where the model fails, and only then.
            shadow_cpu_share: of one core that shadows may use.
            hang_seconds: after which a batch counts as hanging, for :meth:`check_alive`.
            prediction_log: notes which release gave which answer.
        """
        self._monitor = monitor
        self._slices = slices
        self._max_queue_rows = max_queue_rows
        self._cache_rows = cache_rows
        self._recent = Recent(MAX_RECENT, token or secrets.token_hex(4))
        self._now_us = now_us
        self.policy = policy or Policy(
            Limits(), now_us=now_us, monotonic=time.monotonic, missing="refuse"
        )
        self._lanes = [self._new_lane()]
        self._serving: dict[str, Active] = {}
        """By name; under the empty one, what answers requests that name no model."""
        self.tally = Tally()
        """What this process did since it started."""
        self._closed = False
        self._prediction_log = prediction_log
        self._answerer = Answerer(
            monitor,
            self._recent,
            now_us,
            self.tally,
            prediction_log,
            policy=self.policy,
            max_explained_rows=max_queue_rows,
            shadow_cpu_share=shadow_cpu_share,
        )
        self.thread = InferenceThread(self._answerer, hang_seconds)
        self._queue = LoopQueue(self.thread)
        self.thread.start()

    @property
    def lanes(self) -> list[Lane]:
        """Every model, the first one first."""
        return list(self._lanes)

    @property
    def consumers(self) -> frozenset[str]:
        """Who asked so far, as far as they are known."""
        return frozenset(name for name, _ in self.tally.consumers)

    def add_lane(self) -> Lane:
        """Make room for one more model."""
        lane = self._new_lane()
        self._lanes.append(lane)
        return lane

    def _new_lane(self) -> Lane:
        return Lane(
            self._slices,
            cache_rows=self._cache_rows,
            tolerates=self.policy.missing == "fallback",
            know=self._monitor.know,
            changed=self._lanes_changed,
        )

    def _lanes_changed(self) -> None:
        current = [lane.current for lane in self._lanes if lane.current is not None]
        serving = {active.release.ref.model: active for active in current}
        if len(current) == 1:
            serving[""] = current[0]
        self._serving = serving  # in one step: the inference thread looks into it

    @property
    def active(self) -> LoadedRelease | None:
        """The release that answers now."""
        return self._lanes[0].active

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for an answer."""
        return self._queue.rows + self.thread.rows

    @property
    def max_queue_rows(self) -> int:
        """Rows that may wait."""
        return self._max_queue_rows

    def check_alive(self) -> None:
        """Raise :class:`Unavailable` where the inference thread is dead or hangs."""
        self.thread.check_alive()

    @property
    def unlogged(self) -> int:
        """Lines that the disk did not take for the prediction log."""
        return self._prediction_log.lost if self._prediction_log is not None else 0

    @property
    def shadow_dropped(self) -> int:
        """Rows that no shadow answered for want of time, since the process began."""
        return self._answerer.shadowing.dropped

    @property
    def shadow(self) -> LoadedRelease | None:
        """The release that scores the same rows unseen."""
        return self._lanes[0].shadow

    @property
    def totals(self) -> Totals:
        """What the active release did since it was activated."""
        return self._lanes[0].totals

    @property
    def remembering(self) -> Remembering:
        """What the features remember, and where they began."""
        return self._lanes[0].remembering

    def set_active(self, release: LoadedRelease | None, arm: Arm, rollout: str | None) -> None:
        """See :meth:`Lane.set_active`."""
        self._lanes[0].set_active(release, arm, rollout)

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """See :meth:`Lane.set_shadow`."""
        self._lanes[0].set_shadow(release)

    async def predict(
        self,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
        terms: Terms = PLAIN,
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]; see :meth:`submit`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit(samples, slices or {}, done, terms)
        )
        assert isinstance(answer, list)
        return answer

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
        terms: Terms = PLAIN,
    ) -> list[Prediction]:
        """Take sensor samples and answer the windows they complete; see :meth:`submit_push`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit_push(stream, times_us, samples, slices or {}, done, terms)
        )
        assert isinstance(answer, list)
        return answer

    async def observe(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        sequence: npt.ArrayLike,
        fields: Given,
        arrived_us: npt.ArrayLike | None = None,
        terms: Terms = PLAIN,
    ) -> Observed:
        """Remember events; see :meth:`submit_events`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit_events(
                stream, times_us, sequence, fields, arrived_us, done, terms
            )
        )
        assert isinstance(answer, Observed)
        return answer

    async def ask(
        self, fields: Given, slices: dict[str, str] | None = None, terms: Terms = PLAIN
    ) -> list[Prediction]:
        """Answer requests; see :meth:`submit_requests`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit_requests(fields, slices or {}, done, terms)
        )
        assert isinstance(answer, list)
        return answer

    async def explain(
        self, samples: npt.ArrayLike, how: Occlusion, terms: Terms = PLAIN
    ) -> Explanation:
        """Explain whole windows; see :meth:`submit_explanation`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit_explanation(samples, how, done, terms)
        )
        assert isinstance(answer, Explanation)
        return answer

    async def explain_requests(
        self, fields: Given, how: Occlusion, terms: Terms = PLAIN
    ) -> Explanation:
        """Explain requests; see :meth:`submit_explanation_of_requests`."""
        answer = await self._queue.answer_of(
            lambda done: self.submit_explanation_of_requests(fields, how, done, terms)
        )
        assert isinstance(answer, Explanation)
        return answer

    async def remembered(self, lane: Lane | None = None) -> Remembered | None:
        """What the features remember after all work so far; none where no release is active."""
        lane = lane or self._lanes[0]
        active = lane.current
        if self._closed:
            return lane.remembering.last()
        if active is None:
            return None
        job = Admitted(Remember(), 0)
        answer = await self._queue.answer_of(lambda done: self._enqueue(active, job, {}, done))
        assert isinstance(answer, Remembered)
        return answer

    def submit(
        self,
        samples: npt.ArrayLike,
        slices: dict[str, str],
        done: Done,
        terms: Terms = PLAIN,
    ) -> None:
        """Queue whole windows; ``done`` gets the answer, or an error, on the event loop.

        Values are looked at on the inference thread: NaN or infinity reach ``done`` as
        :class:`InvalidInput`.

        Raises:
            InvalidInput: the shape does not fit, a slice is not declared, or the release answers
                requests.
            Overloaded: too many rows wait already.
            UnknownModel: it is not served here.
            Unavailable: no release is active, or the agent stops.
            DeadlineExceeded: reaches ``done`` where the answer would come too late.
        """
        active = self.serving(terms.model)
        self._enqueue(active, admission.windows(active.release, samples), slices, done, terms)

    def submit_push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str],
        done: Done,
        terms: Terms = PLAIN,
    ) -> None:
        """Feed a sensor stream; ``done`` gets the answers of the windows that are complete now.

        A refused push took no sample, so that the caller can send it again.

        Raises: as :meth:`submit`.
        """
        active = self.serving(terms.model)
        work = admission.samples(active.release, stream, times_us, samples)
        self._enqueue(active, work, slices, done, terms)

    def submit_events(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        sequence: npt.ArrayLike,
        fields: Given,
        arrived_us: npt.ArrayLike | None,
        done: Done,
        terms: Terms = PLAIN,
    ) -> None:
        """Remember events; ``done`` gets how many were taken, and why others were not.

        Args:
            stream: one of the definition's.
            times_us: event times, int64 [n].
            sequence: int64 [n].
            fields: a column for each of the stream's fields.
            arrived_us: when they came, int64 [n]; none for now.
            done: gets the answer.
            terms: the model, and who asks.

        Raises: as :meth:`submit`; a refused batch took no event.
        """
        active = self.serving(terms.model)
        work = admission.events(active.release, stream, times_us, sequence, fields, arrived_us)
        self._enqueue(active, work, {}, done, terms)

    def submit_requests(
        self, fields: Given, slices: dict[str, str], done: Done, terms: Terms = PLAIN
    ) -> None:
        """Answer requests, a column for each field; without the one of their time, they are of now.

        Raises: as :meth:`submit`.
        """
        active = self.serving(terms.model)
        self._enqueue(active, admission.requests(active.release, fields), slices, done, terms)

    def submit_explanation(
        self, samples: npt.ArrayLike, how: Occlusion, done: Done, terms: Terms = PLAIN
    ) -> None:
        """Say what each input did to the answers to whole windows, once no live request waits.

        Nothing of it is remembered or counted in statistics.

        Raises: as :meth:`submit`; but that too many wait reaches ``done``.
        """
        active = self.serving(terms.model)
        of = admission.windows(active.release, samples)
        work = admission.explanation(active.release, of, how)
        self._enqueue(active, work, {}, done, terms)

    def submit_explanation_of_requests(
        self, fields: Given, how: Occlusion, done: Done, terms: Terms = PLAIN
    ) -> None:
        """As :meth:`submit_explanation`, for requests; what features remember stays as it is."""
        active = self.serving(terms.model)
        of = admission.requests(active.release, fields)
        work = admission.explanation(active.release, of, how)
        self._enqueue(active, work, {}, done, terms)

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Join a label with its prediction; false when it is unknown, too old or labelled.

        From any thread.

        Raises:
            InvalidInput: the release that answered has no such class, or no release has.
            Unavailable: no release is active.
        """
        serving = self._serving
        if not serving:
            raise self._not_serving("")
        given = self._recent.take(prediction_id, label)
        if given is None:
            known = dict.fromkeys(
                name for active in serving.values() for name in active.release.classes
            )
            if label not in known:
                raise InvalidInput(f"label {label[:64]!r} is not one of {', '.join(known)}")
            return False
        self._monitor.labelled(given, given.target, label)
        return True

    def serving(self, model: str) -> Active:
        """What answers requests for a model now; from any thread.

        Raises:
            UnknownModel: it is not served here.
            InvalidInput: several are, and none is named.
            Unavailable: no release is active, or the agent stops.
        """
        active = self._serving.get(model)
        if active is None or self._closed:
            raise self._not_serving(model)
        return active

    def admit(
        self,
        active: Active,
        admitted: Admitted,
        slices: dict[str, str],
        done: Done,
        terms: Terms,
        waiting_rows: int,
    ) -> Job:
        """Make a job of work that may be done; from any thread.

        Args:
            active: has to answer it.
            admitted: work that fits its definition.
            slices: the request's own.
            done: gets the answer on the inference thread.
            terms: the deadline, and who asks.
            waiting_rows: rows before it.

        Raises:
            InvalidInput: a slice is not declared.
            Overloaded: too many rows wait already.
        """
        work, rows = admitted
        if waiting_rows + rows > self._max_queue_rows:
            raise Overloaded(
                f"{waiting_rows} rows wait for the model already; slow down and try again"
            )
        return Job(
            active,
            work,
            rows,
            _declared(active, slices) if slices else active.slices,
            done,
            self._now_us(),
            time.perf_counter(),
            terms.deadline,
            terms.consumer,
        )

    async def close(self) -> None:
        """Answer and count what waits, then stop; later requests are refused."""
        if self._closed:
            return
        self._closed = True
        self._queue.hand_over()
        await asyncio.to_thread(self.thread.stop)
        if self._prediction_log is not None:
            self._prediction_log.close()
        await asyncio.sleep(0)  # the thread's last answers stand in the loop's queue

    def _not_serving(self, model: str) -> SerinusError:
        if self._closed:
            return Unavailable("the agent is stopping; try again")
        serving = sorted(name for name in self._serving if name)
        if not serving:
            return Unavailable("no release is active on this device yet; wait for its rollout")
        if model:
            return UnknownModel(f"no model {model[:64]!r} here; served: {', '.join(serving)}")
        return InvalidInput(f"several models are served; name one of {', '.join(serving)}")

    def _enqueue(
        self,
        active: Active,
        admitted: Admitted,
        slices: dict[str, str],
        done: Done,
        terms: Terms = PLAIN,
    ) -> None:
        """Hand work of the event loop to the inference thread."""
        if self._closed:
            raise self._not_serving("")
        back = self._queue.back(admitted.rows, done)
        self._queue.add(self.admit(active, admitted, slices, back, terms, self._queue.rows))


def _declared(active: Active, slices: dict[str, str]) -> dict[str, str]:
    """The device's slices with the request's own, as far as the release declares them."""
    declared = active.release.manifest.slices
    for name, value in slices.items():
        if value not in declared.get(name, []):
            known = "; ".join(f"{key}={'|'.join(values)}" for key, values in declared.items())
            raise InvalidInput(
                f"slice {name[:64]}={value[:64]} is not declared by {active.release.ref.name}; "
                f"declared: {known or 'none'}"
            )
    return {**active.slices, **slices}
