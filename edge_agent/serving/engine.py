"""Takes requests, drains them as one batch whenever the runtime is free, answers all of them.

The event loop checks and queues; one inference thread computes. There is no batching timer: a
batch is whatever came while the last one ran. Shadow scoring happens after the answers, only
while nobody waits, and is dropped first.
"""

import asyncio
import logging
import queue
import secrets
import threading
from collections.abc import Callable

import numpy.typing as npt

from edge_agent.heartbeat import Heartbeat
from edge_agent.monitor import Monitor, Role
from edge_agent.serving import admission
from edge_agent.serving.admission import Admitted
from edge_agent.serving.answering import Answerer
from edge_agent.serving.asking import Remember
from edge_agent.serving.predictions import Prediction, Recent
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.remembering import Remembering
from edge_agent.serving.work import Active, Answer, Done, Job, Remembered, Totals
from edge_core.errors import InvalidInput, Overloaded, SerinusError, Unavailable
from edge_core.features.columns import Given
from edge_core.features.request_evaluation import Observed
from edge_core.messages.telemetry import Arm

__all__ = ["Engine", "Totals"]

MAX_RECENT = 20_000

log = logging.getLogger(__name__)


class Engine:
    """Serves one model: an active release, perhaps a shadow, and the baseline behind both.

    To be made and called on the event loop; only the inference thread computes.
    """

    def __init__(
        self,
        monitor: Monitor,
        *,
        slices: dict[str, str],
        max_queue_rows: int,
        now_us: Callable[[], int],
        token: str | None = None,
    ) -> None:
        """Start the inference thread.

        Args:
            monitor: counts what is answered.
            slices: the device's own slices; a request may name others.
            max_queue_rows: rows that may wait; more are refused as ``Overloaded``.
            now_us: UTC clock in microseconds.
            token: makes prediction ids unique among the device's processes; drawn if none.
        """
        self._monitor = monitor
        self._slices = slices
        self._max_queue_rows = max_queue_rows
        self._loop = asyncio.get_running_loop()
        self._active: Active | None = None
        self._shadow: LoadedRelease | None = None
        self._recent = Recent(MAX_RECENT, token or secrets.token_hex(4))
        self._now_us = now_us
        self._answerer = Answerer(monitor, self._recent, now_us)
        self.remembering = Remembering()
        """What the features remember, and where they began."""
        self._admitted: list[Job] = []
        self._waiting_rows = 0
        self._closed = False
        self._more_shadow = False
        # None ends the thread. Lists of jobs, since a wake-up costs more than a job.
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self.totals = Totals()
        self.heartbeat = Heartbeat("the inference thread")
        """Busy while the model answers or scores as a shadow, for a watchdog."""
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    @property
    def active(self) -> LoadedRelease | None:
        """The release that answers now."""
        return self._active.release if self._active else None

    @property
    def shadow(self) -> LoadedRelease | None:
        """The release that scores the same rows unseen."""
        return self._shadow

    def set_active(self, release: LoadedRelease | None, arm: Arm, rollout: str | None) -> None:
        """Let this release answer from the next request on.

        What its features remember goes on where the definition is the same as before.
        """
        if release is None:
            self._active = None
            return
        role = Role(release=release.ref, target=release.target, arm=arm, rollout=rollout)
        declared = release.manifest.slices
        own = {
            name: value for name, value in self._slices.items() if value in declared.get(name, [])
        }
        memory = self.remembering.memory_of(release)
        self._active = Active(release, role, own, memory, self._active)
        self.totals = self._active.totals

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """Score the same rows with this release, too, unseen by applications.

        Raises:
            InvalidInput: nothing gives its features of the active release's rows.
        """
        if release and self._active:
            problem = self._active.release.shadow_problem(release)
            if problem:
                raise InvalidInput(f"{problem}; it cannot run as its shadow")
        self._shadow = release

    async def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]; see :meth:`submit`."""
        answer = await self._answer_of(lambda done: self.submit(samples, slices or {}, done))
        assert isinstance(answer, list)
        return answer

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Take sensor samples and answer the windows they complete; see :meth:`submit_push`."""
        answer = await self._answer_of(
            lambda done: self.submit_push(stream, times_us, samples, slices or {}, done)
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
    ) -> Observed:
        """Remember events; see :meth:`submit_events`."""
        answer = await self._answer_of(
            lambda done: self.submit_events(stream, times_us, sequence, fields, arrived_us, done)
        )
        assert isinstance(answer, Observed)
        return answer

    async def ask(self, fields: Given, slices: dict[str, str] | None = None) -> list[Prediction]:
        """Answer requests; see :meth:`submit_requests`."""
        answer = await self._answer_of(
            lambda done: self.submit_requests(fields, slices or {}, done)
        )
        assert isinstance(answer, list)
        return answer

    async def remembered(self) -> Remembered | None:
        """What the features remember after all work so far; none where no release is active."""
        if self._closed:
            return self.remembering.last()
        if self._active is None:
            return None
        job = Admitted(Remember(), 0)
        answer = await self._answer_of(lambda done: self._admit(job, {}, done))
        assert isinstance(answer, Remembered)
        return answer

    def submit(self, samples: npt.ArrayLike, slices: dict[str, str], done: Done) -> None:
        """Queue whole windows; ``done`` gets the answer, or an error, on the event loop.

        Values are looked at on the inference thread: NaN or infinity reach ``done`` as
        :class:`InvalidInput`.

        Raises:
            InvalidInput: the shape does not fit, a slice is not declared, or the release answers
                requests.
            Overloaded: too many rows wait already.
            Unavailable: no release is active, or the agent stops.
        """
        self._admit(admission.windows(self._release(), samples), slices, done)

    def submit_push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str],
        done: Done,
    ) -> None:
        """Feed a sensor stream; ``done`` gets the answers of the windows that are complete now.

        A refused push took no sample, so that the caller can send it again.

        Raises: as :meth:`submit`.
        """
        work = admission.samples(self._release(), stream, times_us, samples)
        self._admit(work, slices, done)

    def submit_events(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        sequence: npt.ArrayLike,
        fields: Given,
        arrived_us: npt.ArrayLike | None,
        done: Done,
    ) -> None:
        """Remember events; ``done`` gets how many were taken, and why others were not.

        Args:
            stream: one of the definition's.
            times_us: event times, int64 [n].
            sequence: int64 [n].
            fields: a column for each of the stream's fields.
            arrived_us: when they came, int64 [n]; none for now.
            done: gets the answer.

        Raises: as :meth:`submit`; a refused batch took no event.
        """
        work = admission.events(self._release(), stream, times_us, sequence, fields, arrived_us)
        self._admit(work, {}, done)

    def submit_requests(self, fields: Given, slices: dict[str, str], done: Done) -> None:
        """Answer requests, a column for each field; without the one of their time, they are of now.

        Raises: as :meth:`submit`.
        """
        self._admit(admission.requests(self._release(), fields), slices, done)

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Join a label with its prediction; false when it is unknown, too old or labelled.

        Raises:
            InvalidInput: the active release has no such class.
            Unavailable: no release is active.
        """
        active = self._require_active()
        if label not in active.release.classes:
            known = ", ".join(active.release.classes)
            raise InvalidInput(f"label {label[:64]!r} is not one of {known}")
        given = self._recent.take(prediction_id)
        if given is None:
            return False
        self._monitor.labelled(given, active.release.target, label)
        return True

    async def close(self) -> None:
        """Answer and count what waits, then stop; later requests are refused."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the thread's last answers stand in the loop's queue

    async def _answer_of(self, submit: Callable[[Done], None]) -> Answer:
        future: asyncio.Future[Answer] = self._loop.create_future()

        def done(answer: Answer) -> None:
            if future.done():
                return
            if isinstance(answer, SerinusError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        submit(done)
        return await future

    def _require_active(self) -> Active:
        if self._closed:
            raise Unavailable("the agent is stopping; try again")
        if self._active is None:
            raise Unavailable("no release is active on this device yet; wait for its rollout")
        return self._active

    def _release(self) -> LoadedRelease:
        return self._require_active().release

    def _declared(self, active: Active, slices: dict[str, str]) -> dict[str, str]:
        """The device's slices with the request's own, as far as the release declares them."""
        declared = active.release.manifest.slices
        for name, value in slices.items():
            if value not in declared.get(name, []):
                known = "; ".join(f"{key}={'|'.join(values)}" for key, values in declared.items())
                raise InvalidInput(
                    f"slice {name[:64]}={value[:64]} is not declared by {active.release.ref.name}; "
                    f"declared: {known or 'none'}"
                )
        return {**active.slices, **slices} if slices else active.slices

    def _admit(self, admitted: Admitted, slices: dict[str, str], done: Done) -> None:
        active, (work, rows) = self._require_active(), admitted
        declared = self._declared(active, slices)
        if self._waiting_rows + rows > self._max_queue_rows:
            raise Overloaded(
                f"{self._waiting_rows} rows wait for the model already; slow down and try again"
            )
        self._waiting_rows += rows
        came_us = self._now_us()
        self._admitted.append(
            Job(active=active, work=work, rows=rows, slices=declared, done=done, came_us=came_us)
        )
        if len(self._admitted) == 1:
            # After everything that this turn of the loop reads: one wake-up, one batch.
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._admitted:
            jobs, self._admitted = self._admitted, []
            self._queue.put(jobs)

    def _deliver(self, answers: list[tuple[Job, Answer]]) -> None:
        for job, answer in answers:
            self._waiting_rows -= job.rows
            try:
                job.done(answer)
            except Exception as error:  # one application's trouble is not the next one's
                log.error("an answer was not delivered: %s: %s", type(error).__name__, error)

    def _serve(self) -> None:
        """Run the inference thread: answers first, then statistics, then the shadow."""
        while (jobs := self._drain()) is not None:
            self.heartbeat.busy()
            if jobs:
                answers = self._answerer.answer(jobs)
                try:
                    self._loop.call_soon_threadsafe(self._deliver, answers)
                except RuntimeError:  # the loop was closed without close(): nobody waits
                    return
            try:
                self._answerer.count(shadowed=self._shadow is not None)
                idle = self._queue.empty()
                self._more_shadow = idle and self._answerer.shadow(self._shadow, self._active)
            except Exception as error:
                log.error("statistics failed: %s: %s", type(error).__name__, error)
            self.heartbeat.idle()

    def _drain(self) -> list[Job] | None:
        """Everything that waits; none at the end. Waits itself only if no shadow work is left."""
        try:
            first = self._queue.get(block=not self._more_shadow)
        except queue.Empty:
            return []
        jobs = first
        while jobs is not None and not self._queue.empty():
            more = self._queue.get()
            if more is None:
                self._queue.put(None)
                break
            jobs += more
        return jobs
