"""The inference thread: it reads requests, answers, counts, and owns all that this needs.

There is no batching timer and no hand-over of requests between threads: a turn takes whatever came
while the last one ran, from the connections that the thread watches and from other threads, and
answers it together. Explanations and shadows are worked on only in a turn in which nobody asked.
"""

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable

from edge_agent.serving.answering import Answerer
from edge_agent.serving.pulse import Pulse
from edge_agent.serving.work import Answer, Job

Handler = Callable[[int], None]
Errand = Callable[[], None]

HANG_SECONDS = 10.0
"""Work that takes longer hangs, as far as ``/healthz`` is concerned."""

log = logging.getLogger(__name__)


class InferenceThread:
    """To be started, posted to and stopped by other threads; the rest is the thread's own."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Handler] = {self._wake: self._run_errands}
        self._errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._turn_ends: list[Errand] = []
        self._at_stop: list[Errand] = []
        self._jobs: list[Job] = []
        self._stopping = False
        self._more = False
        self.rows = 0
        """Rows that were taken in this turn, or wait to be explained."""
        self._pulse = Pulse(time.monotonic, limit_seconds=HANG_SECONDS)
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)

    def start(self) -> None:
        """Begin with the first turn."""
        self._thread.start()

    def post(self, errand: Errand) -> None:
        """Let the thread do something at the beginning of its next turn. From any thread."""
        self._errands.put(errand)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Answer and count what waits, then end; blocks until then. From any other thread."""
        self.post(self._stop)
        self._thread.join()
        self._poll.close()
        os.close(self._wake)

    def check_alive(self) -> None:
        """Raise :class:`Unavailable` where the thread is dead or hangs. From any thread."""
        self._pulse.check(self._thread)

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

    def _serve(self) -> None:
        while not self._stopping:
            self._read()
            busy = bool(self._jobs)
            self._answer()
            try:
                self._answerer.count()
                explaining = bool(self._answerer.explanations)
                self._more = busy or explaining or self._answerer.shadow()
            except Exception as error:
                log.error("statistics failed: %s: %s", type(error).__name__, error)
        self.rows = 0
        self._deliver(self._answerer.explanations.abandon())
        for errand in self._at_stop:
            _tried(errand)

    def _read(self) -> None:
        """Let everything that is ready hand in its jobs; wait only if no other work is left."""
        self._pulse.end()
        ready = self._poll.poll(0 if self._more else -1)
        self._pulse.begin()
        for descriptor, events in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None:  # none where an earlier one of this turn closed it
                _tried(handler, events)

    def _answer(self) -> None:
        jobs, self._jobs = self._jobs, []
        answers = self._answerer.answer(jobs) if jobs else []
        explanations = self._answerer.explanations
        answers += explanations.step(idle=not jobs)
        self.rows = explanations.rows
        self._deliver(answers)

    def _deliver(self, answers: list[tuple[Job, Answer]]) -> None:
        for job, answer in answers:
            try:
                job.done(answer)
            except Exception as error:  # one application's trouble is not the next one's
                log.error("an answer was not delivered: %s: %s", type(error).__name__, error)
        for errand in self._turn_ends:
            _tried(errand)

    def _run_errands(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while not self._errands.empty():
            _tried(self._errands.get())

    def _stop(self) -> None:
        self._stopping = True


def _tried(errand: Callable[..., None], *arguments: int) -> None:
    """Run an errand; its defect must not end the service."""
    try:
        errand(*arguments)
    except Exception as error:
        log.error("the inference thread failed: %s: %s", type(error).__name__, error)
