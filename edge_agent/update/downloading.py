"""Fetches a release with patience: tries again, less and less often, and comes to an end."""

import asyncio
import random
from collections.abc import Callable

from edge_agent.update.fetching import Fetcher
from edge_agent.update.patience import Patience, pause_seconds
from edge_agent.update.wishes import Wishes
from edge_core.errors import Unavailable
from edge_core.release import ReleaseRef


class Downloads:
    """Downloads in a thread of their own, which end early where nobody wants them any more."""

    def __init__(
        self,
        fetcher: Fetcher,
        wishes: Wishes,
        *,
        attempts: int,
        first_pause: float,
        held_up: Callable[[Unavailable], None] = lambda error: None,
    ) -> None:
        self._fetcher = fetcher
        self._wishes = wishes
        self._attempts = attempts
        self._first_pause = first_pause
        self._held_up = held_up
        """Told what is in the way while it is tried again."""

    async def fetch(self, ref: ReleaseRef) -> bool:
        """Bring one release here; false where a newer wish came meanwhile.

        Raises:
            Unavailable: it gave up, and says why and after how many attempts.
            OSError: the disk failed.
            Exception: whatever else the repository made of it; trying again does not help.
        """
        patience = Patience(self._attempts)
        while True:
            try:
                return await self._attempt(ref)
            except Unavailable as error:
                if self._wishes.waiting:
                    return False
                held = await asyncio.to_thread(self._fetcher.held, ref)
                if patience.lost(held):
                    raise type(error)(
                        f"{error} (gave up after {patience.failed} attempts)"
                    ) from error
                self._held_up(error)
            if await self.pause(patience.failed - 1):
                return False

    async def pause(self, attempt: int) -> bool:
        """Wait before another attempt; true when a newer wish came meanwhile."""
        draw = random.random()  # jitter, not a secret
        return await self._wishes.arrival_within(pause_seconds(attempt, self._first_pause, draw))

    async def _attempt(self, ref: ReleaseRef) -> bool:
        self._fetcher.renew()  # here: the thread may begin only after it was told to end
        work = asyncio.create_task(asyncio.to_thread(self._fetcher.fetch, ref))
        newer = asyncio.create_task(self._wishes.arrival())
        try:
            await asyncio.wait((work, newer), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._fetcher.cancel()
                await asyncio.wait((work,))
            work.result()
        finally:
            newer.cancel()
            if not work.done():  # the agent stops, and waits for its threads
                self._fetcher.cancel()
                work.add_done_callback(_look_at)
        return not self._wishes.waiting


def _look_at(work: asyncio.Task[None]) -> None:
    """Take an outcome that nobody waits for any more."""
    if not work.cancelled():
        work.exception()
