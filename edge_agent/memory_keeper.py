"""Keeps what features remember on disk: at the end, and now and then while it changes."""

import asyncio
import logging
from collections.abc import Callable

from edge_agent.memory_file import MemoryFile
from edge_agent.serving.engine import Engine
from edge_core.errors import InvalidInput, SerinusError

log = logging.getLogger(__name__)


class MemoryKeeper:
    """The engine's memory in a file. The inference thread takes snapshots; others write them."""

    def __init__(
        self,
        file: MemoryFile,
        engine: Engine,
        *,
        store_seconds: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Take parts.

        Args:
            file: where the memory is kept.
            engine: whose memory it is.
            store_seconds: how often it is stored while it changes; 0: only by :meth:`finish`.
            now_ms: UTC clock in milliseconds.
        """
        self._file = file
        self._engine = engine
        self._store_seconds = store_seconds
        self._now_ms = now_ms
        self.trouble = ""
        """Why it could not be stored the last time; empty where it was."""
        self._kept = (0, 0)
        self._storing: asyncio.Task[None] | None = None

    @property
    def stored(self) -> bool:
        """Whether all that features remember stands on the disk."""
        changes = self._engine.remembering.changes
        return changes == self._kept or not changes[1]

    async def recall(self) -> None:
        """Let the engine's first release begin with what the process before remembered."""
        remembering = self._engine.remembering
        try:
            remembering.offer(await asyncio.to_thread(self._file.read, self._now_ms()))
        except InvalidInput as error:
            remembering.refuse(str(error))

    async def run(self) -> None:
        """Store again and again; to be cancelled, then :meth:`finish` has the last word."""
        while True:
            await asyncio.sleep(self._store_seconds or float("inf"))
            # It ends by itself also where this task is cancelled meanwhile.
            self._storing = asyncio.create_task(self._store())
            await asyncio.shield(self._storing)

    async def finish(self) -> None:
        """Store for the last time, after the engine was closed."""
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._store()

    async def _store(self) -> None:
        if self.stored:
            return
        # What changes from here on is stored the next time.
        changes = self._engine.remembering.changes
        try:
            remembered = await self._engine.remembered()
            if remembered is not None:
                await asyncio.to_thread(self._file.write, remembered, self._now_ms())
                self._kept = changes
            self.trouble = ""
        except SerinusError as error:
            if str(error) != self.trouble:
                log.error("%s", error)
            self.trouble = str(error)
