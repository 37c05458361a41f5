"""The server's newest wish, and its word that a trial has passed. On the event loop only."""

import asyncio
import contextlib

from edge_core.messages.deployment import DesiredState


class Wishes:
    """What was wished and not begun yet."""

    def __init__(self) -> None:
        self._newest: DesiredState | None = None
        self._wake = asyncio.Event()
        self._confirmed: int | None = None

    def want(self, desired: DesiredState, current: DesiredState | None) -> None:
        """Take a wish, or for the one that is followed already, what the server adds to it."""
        if desired.confirmed:
            self._confirmed = desired.revision
        if current is not None and desired.revision == current.revision:
            return
        self._newest = desired
        self._wake.set()

    @property
    def waiting(self) -> bool:
        """Whether a newer wish waits."""
        return self._newest is not None

    def confirmed(self, revision: int) -> bool:
        """Whether the server said that the wish's trial is confirmed."""
        return self._confirmed == revision

    def heard(self) -> None:
        """What waits is known: only a newer one ends a pause from now on."""
        self._wake.clear()

    def take(self) -> DesiredState | None:
        """The wish that waits; nobody else gets it any more."""
        self._wake.clear()
        desired, self._newest = self._newest, None
        return desired

    async def arrival(self) -> None:
        """Wait for a newer wish."""
        await self._wake.wait()

    async def arrival_within(self, seconds: float) -> bool:
        """Wait for a newer wish, but not for ever; whether one waits then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        return self.waiting
