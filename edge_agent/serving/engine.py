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

import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.monitor import Monitor, Role
from edge_agent.serving.answering import Answerer
from edge_agent.serving.predictions import Prediction, Recent
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Active, Answer, Done, Job, Totals
from edge_core.errors import InvalidInput, Overloaded, SerinusError, Unavailable
from edge_core.messages.telemetry import Arm

__all__ = ["Engine", "Totals"]

MAX_ROWS_PER_REQUEST = 1024
MAX_RECENT = 20_000
MAX_STREAM_NAME = 64

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
        now_ms: Callable[[], int],
        token: str | None = None,
    ) -> None:
        """Start the inference thread.

        Args:
            monitor: counts what is answered.
            slices: the device's own slices; a request may name others.
            max_queue_rows: rows that may wait; more are refused as ``Overloaded``.
            now_ms: UTC clock in milliseconds.
            token: makes prediction ids unique among the device's processes; drawn if none.
        """
        self._monitor = monitor
        self._slices = slices
        self._max_queue_rows = max_queue_rows
        self._loop = asyncio.get_running_loop()
        self._active: Active | None = None
        self._shadow: LoadedRelease | None = None
        self._recent = Recent(MAX_RECENT, token or secrets.token_hex(4))
        self._answerer = Answerer(monitor, self._recent, now_ms)
        self._admitted: list[Job] = []
        self._waiting_rows = 0
        self._closed = False
        self._more_shadow = False
        # None ends the thread. Lists of jobs, since a wake-up costs more than a job.
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self.totals = Totals()
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
        """Let this release answer from the next request on; open windows go on if they can."""
        if release is None:
            self._active = None
            return
        role = Role(release=release.ref, target=release.target, arm=arm, rollout=rollout)
        declared = release.manifest.slices
        own = {
            name: value for name, value in self._slices.items() if value in declared.get(name, [])
        }
        self._active = Active(release, role, own, self._active)
        self.totals = self._active.totals

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """Score the same rows with this release, too, unseen by applications.

        Raises:
            InvalidInput: it cuts other windows than the active release, so no row is the same.
        """
        if release and self._active and not self._active.release.same_windows(release):
            raise InvalidInput(
                f"{release.ref.name} uses other windows than {self._active.release.ref.name}; "
                "it cannot run as its shadow"
            )
        self._shadow = release

    async def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]; see :meth:`submit`."""
        return await self._answer_of(lambda done: self.submit(samples, slices or {}, done))

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Take sensor samples and answer the windows they complete; see :meth:`submit_push`."""
        return await self._answer_of(
            lambda done: self.submit_push(stream, times_us, samples, slices or {}, done)
        )

    def submit(self, samples: npt.ArrayLike, slices: dict[str, str], done: Done) -> None:
        """Queue whole windows; ``done`` gets the answer, or an error, on the event loop.

        Values are looked at on the inference thread: NaN or infinity reach ``done`` as
        :class:`InvalidInput`.

        Raises:
            InvalidInput: the shape does not fit, or a slice is not declared.
            Overloaded: too many rows wait already.
            Unavailable: no release is active, or the agent stops.
        """
        active = self._require_active()
        raw = _floats(samples)
        window = active.release.definition.window.samples
        inputs = active.release.definition.input_names
        if raw.ndim != 3 or raw.shape[1:] != (window, len(inputs)):
            raise InvalidInput(
                f"samples have shape {list(raw.shape)}; needed is [batch, {window}, "
                f"{len(inputs)}] with the inputs {', '.join(inputs)}"
            )
        if not 1 <= len(raw) <= MAX_ROWS_PER_REQUEST:
            raise InvalidInput(
                f"{len(raw)} windows in one request; send 1 to {MAX_ROWS_PER_REQUEST}"
            )
        declared = self._declared(active, slices)
        self._admit(Job(active=active, samples=raw, rows=len(raw), slices=declared, done=done))

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
        active = self._require_active()
        if not 1 <= len(stream) <= MAX_STREAM_NAME:
            raise InvalidInput(f"a stream's name has 1 to {MAX_STREAM_NAME} characters")
        raw = _floats(samples)
        rows = 1 + raw.shape[0] // active.release.definition.window.hop if raw.ndim else 1
        if rows > MAX_ROWS_PER_REQUEST:
            raise InvalidInput(
                f"{len(raw)} samples can complete {rows} windows; send fewer in one request, for "
                f"at most {MAX_ROWS_PER_REQUEST} windows"
            )
        self._admit(
            Job(
                active=active,
                samples=raw,
                rows=rows,
                slices=self._declared(active, slices),
                done=done,
                stream=stream,
                times_us=times_us,
            )
        )

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

    async def _answer_of(self, submit: Callable[[Done], None]) -> list[Prediction]:
        future: asyncio.Future[list[Prediction]] = self._loop.create_future()

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

    def _admit(self, job: Job) -> None:
        if self._waiting_rows + job.rows > self._max_queue_rows:
            raise Overloaded(
                f"{self._waiting_rows} rows wait for the model already; slow down and try again"
            )
        self._waiting_rows += job.rows
        self._admitted.append(job)
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


def _floats(samples: npt.ArrayLike) -> Float32:
    if isinstance(samples, np.ndarray) and samples.dtype == np.float32:
        return samples
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is refused by name later
            return np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"samples are not an array of numbers: {error}") from error
