"""The inference thread: it reads requests, answers, counts, and owns all that this needs.

There is no batching timer and no hand-over of requests between threads: a turn takes whatever came
while the last one ran, from the connections that the thread watches and from other threads, and
answers it together. Explanations and shadows get those turns in which nobody asked.
"""

import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Iterable

from edge_agent.heartbeat import Heartbeat
from edge_agent.serving.answering import Answerer
from edge_agent.serving.work import Answer, Job
from edge_core.errors import Unavailable

Handler = Callable[[int], None]
Errand = Callable[[], None]

log = logging.getLogger(__name__)


class InferenceThread:
    """To be started, posted to and stopped by other threads; the rest is the thread's own."""

    def __init__(self, answerer: Answerer, hang_seconds: float) -> None:
        """Prepare; a turn that takes longer than ``hang_seconds`` hangs."""
        self._answerer = answerer
        self._hang_seconds = hang_seconds
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Handler] = {self._wake: self._run_errands}
        self._errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._turn_ends: list[Errand] = []
        self._at_stop: list[Errand] = []
        self._jobs: list[Job] = []
        self._stopping = False
        self._closed = False
        self._waking = threading.Lock()
        """Held while the descriptor that wakes the thread has to stay open."""
        self._pause: float | None = None
        """Seconds until there is something to do though nobody asks; none where there is not."""
        self.heartbeat = Heartbeat("the inference thread")
        """Busy while models answer or score as shadows, for a watchdog."""
        answerer.alive = self.heartbeat.beat
        self.rows = 0
        """Rows that were taken in this turn."""
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    def start(self) -> None:
        """Begin with the first turn."""
        self._thread.start()

    def post(self, errand: Errand) -> None:
        """Let the thread do something at the beginning of its next turn. From any thread.

        Once it was stopped, nothing is done.
        """
        self._errands.put(errand)
        with self._waking:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Answer and count what waits, then end; blocks until then. From any other thread."""
        self.post(self._stop)
        self._thread.join()
        with self._waking:
            self._closed = True
            self._poll.close()
            os.close(self._wake)

    def take(self, job: Job) -> None:
        """Answer this job in the turn that goes on."""
        self._jobs.append(job)
        self.rows += job.rows

    def watch(self, descriptor: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        """Call ``handler(events)`` in each turn in which the descriptor is ready."""
        if descriptor in self._handlers:
            self._poll.modify(descriptor, events)
        else:
            self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        """Watch it no longer."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def at_turn_end(self, errand: Errand) -> None:
        """Call this after the answers of each turn."""
        self._turn_ends.append(errand)

    def at_stop(self, errand: Errand) -> None:
        """Call this when the thread ends."""
        self._at_stop.append(errand)

    def check_alive(self) -> None:
        """Raise :class:`Unavailable` where the thread is dead or hangs. From any thread."""
        if not self._thread.is_alive():
            raise Unavailable("the inference thread has ended; restart the agent")
        busy = self.heartbeat.stuck_seconds()
        if busy > self._hang_seconds:
            raise Unavailable(
                f"the inference thread has been at one batch for {busy:.0f} s; the limit is "
                f"{self._hang_seconds:g} s: the runtime hangs, restart the agent"
            )

    def _serve(self) -> None:
        while not self._stopping:
            self._turn()
        self._deliver(self._answerer.explanations.abandon())
        for errand in (*self._turn_ends, *self._at_stop):
            _tried(errand)

    def _turn(self) -> None:
        """Read, answer, count; explain and shadow where nobody asked."""
        ready = self._poll.poll(self._pause)
        self.heartbeat.busy()
        for descriptor, events in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None:  # none where an earlier one of this turn closed it
                _tried(handler, events)
        jobs, self._jobs = self._jobs, []
        self.rows = 0
        self._deliver(self._answerer.answer(jobs) if jobs else [])
        self._end_turn()
        _tried(self._answerer.count)
        self.heartbeat.beat()
        explanations = self._answerer.explanations
        if explanations:
            self._deliver(explanations.step(idle=not jobs))
            self._end_turn()
        if not jobs and not explanations:
            _tried(self._answerer.shadow)
        self._pause = 0 if explanations else self._answerer.shadowing.pause()
        self.heartbeat.idle()

    def _deliver(self, answers: Iterable[tuple[Job, Answer]]) -> None:
        for job, answer in answers:
            try:
                job.done(answer)
            except Exception as error:  # one application's trouble is not the next one's
                log.error("an answer was not delivered: %s: %s", type(error).__name__, error)

    def _end_turn(self) -> None:
        for errand in self._turn_ends:
            _tried(errand)

    def _run_errands(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while not self._errands.empty():
            _tried(self._errands.get())

    def _stop(self) -> None:
        self._stopping = True


def _tried(errand: Callable[..., object], *arguments: int) -> None:
    """Run an errand; its defect must not end the service."""
    try:
        errand(*arguments)
    except Exception as error:
        log.error("the inference thread failed: %s: %s", type(error).__name__, error)
