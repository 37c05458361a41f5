"""The inference thread: it reads requests, answers, counts, and owns all that this needs.

There is no batching timer and no hand-over of requests between threads: a turn takes whatever came
while the last one ran, from the connections that the thread watches and from other threads, and
answers it together. Shadows work only in a turn in which nobody asked.
"""

import logging
import os
import queue
import select
import threading
from collections.abc import Callable

from edge_agent.heartbeat import Heartbeat
from edge_agent.serving.answering import Answerer
from edge_agent.serving.work import Job

Handler = Callable[[int], None]
Errand = Callable[[], None]

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
        self._more_shadow = False
        self.heartbeat = Heartbeat("the inference thread")
        """Busy while models answer or score as shadows, for a watchdog."""
        self.rows = 0
        """Rows that were taken in this turn."""
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
            self.heartbeat.busy()
            busy = bool(self._jobs)
            self._answer()
            try:
                self._answerer.count()
                self._more_shadow = busy or self._answerer.shadow()
            except Exception as error:
                log.error("statistics failed: %s: %s", type(error).__name__, error)
            self.heartbeat.idle()
        for errand in self._at_stop:
            _tried(errand)

    def _read(self) -> None:
        """Let everything that is ready hand in its jobs; wait only if no shadow work is left."""
        for descriptor, events in self._poll.poll(0 if self._more_shadow else -1):
            handler = self._handlers.get(descriptor)
            if handler is not None:  # none where an earlier one of this turn closed it
                _tried(handler, events)

    def _answer(self) -> None:
        jobs, self._jobs = self._jobs, []
        self.rows = 0
        for job, answer in self._answerer.answer(jobs) if jobs else ():
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
