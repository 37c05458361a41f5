"""Work of the event loop on its way to the inference thread, and its answers on their way back."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from edge_agent.serving.thread import InferenceThread
from edge_agent.serving.work import Answer, Done, Job
from edge_core.errors import SerinusError

log = logging.getLogger(__name__)


class LoopQueue:
    """To be made and used on the event loop."""

    def __init__(self, thread: InferenceThread) -> None:
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._admitted: list[Job] = []
        self._answered: list[tuple[int, Done, Answer]] = []
        self.rows = 0
        """Rows that wait for an answer."""
        thread.at_turn_end(self._hand_back)

    def back(self, rows: int, done: Done) -> Done:
        """What brings a job's answer back to ``done``."""
        return partial(self._note, rows, done)

    def add(self, job: Job) -> None:
        """Let a job wait, whose ``done`` is of :meth:`back`."""
        self.rows += job.rows
        self._admitted.append(job)
        if len(self._admitted) == 1:
            # After everything that this turn of the loop reads: one wake-up, one batch.
            self._loop.call_soon(self.hand_over)

    def hand_over(self) -> None:
        """Give what waits to the thread."""
        if self._admitted:
            jobs, self._admitted = self._admitted, []
            self._thread.post(partial(self._take, jobs))

    async def answer_of(self, submit: Callable[[Done], None]) -> Answer:
        """Submit, and wait for the answer.

        Raises:
            SerinusError: the answer is one.
        """
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

    def _take(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._thread.take(job)

    def _note(self, rows: int, done: Done, answer: Answer) -> None:
        """Keep an answer for the event loop; on the inference thread."""
        self._answered.append((rows, done, answer))

    def _hand_back(self) -> None:
        """Give the turn's answers to the event loop; on the inference thread."""
        if self._answered:
            answered, self._answered = self._answered, []
            # Fails where the loop was closed without close(): nobody waits then.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, answered)

    def _deliver(self, answered: list[tuple[int, Done, Answer]]) -> None:
        for rows, done, answer in answered:
            self.rows -= rows
            try:
                done(answer)
            except Exception as error:  # one application's trouble is not the next one's
                log.error("an answer was not delivered: %s: %s", type(error).__name__, error)
