"""Renews the device's certificate in time, again where it fails, and says so meanwhile."""

import asyncio
import logging
import random
from collections.abc import Callable

from edge_agent.identity.authority import Authority, HolderKey
from edge_agent.identity.files import Certificate, IdentityFiles
from edge_agent.identity.keys import FileKey
from edge_agent.ports import Clock
from edge_core.errors import InvalidConfiguration, SerinusError

log = logging.getLogger(__name__)

DUE = 2 / 3
"""Share of a certificate's life after which it is renewed."""
JITTER = 0.05
"""Devices that were enrolled together come so much of a life apart."""
TRIES = 20
"""Attempts that fit into what is left of a certificate's life."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 3600.0
LOOK_SECONDS = 30.0
"""A clock may be set while one waits."""


class Renewal:
    """One device's certificate. On the event loop; requests are made in a thread."""

    def __init__(
        self,
        *,
        files: IdentityFiles,
        authority: Authority,
        hardware: Callable[[], HolderKey] | None,
        clock: Clock,
        renewed: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take parts.

        Args:
            files: where key and certificate lie.
            authority: whom to ask.
            hardware: opens the key that vouches; none: the certificate's own does.
            clock: for what is due.
            renewed: called with every new certificate.
            draw: random numbers from 0 to 1.

        Raises:
            InvalidConfiguration: the device is not enrolled, or its files are damaged.
        """
        self._files = files
        self._authority = authority
        self._hardware = hardware
        self._clock = clock
        self._renewed = renewed
        self._draw = draw
        self.trouble = ""
        """Why the certificate cannot be renewed; empty where it can."""

    async def run(self) -> None:
        """Renew for ever."""
        present = self._files.present()
        assert present is not None, "the agent starts only where it is enrolled"
        due_ms = due(present[1], self._draw())
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, due_ms - self._clock.now_ms()) / 1000))
            now = self._clock.now_ms()
            if now < due_ms:
                continue
            try:
                made = await asyncio.to_thread(self._renew, now)
            except SerinusError as error:
                wait = self._complain(str(error))
                if isinstance(error, InvalidConfiguration):
                    await asyncio.Event().wait()  # tokens lock themselves after some wrong PINs
                due_ms = now + round(wait * 1000)
            else:
                self.trouble = ""
                due_ms = due(made, self._draw())
                log.info("the device's certificate was renewed")
                self._renewed()

    def _renew(self, now_ms: int) -> Certificate:
        key, present = _present(self._files)
        signer: HolderKey = key if self._hardware is None else self._hardware()
        return self._authority.renew(self._files, present, signer, now_ms)

    def _complain(self, error: str) -> float:
        """Say what stands in the way; returns the seconds until the next attempt."""
        left = (_present(self._files)[1].not_after_ms - self._clock.now_ms()) / 1000
        if left > 0:
            said = f"the device's certificate cannot be renewed: {error}"
        else:
            said = f"the device's certificate has expired: enrol it again with a token ({error})"
        if said != self.trouble:
            self.trouble = said
            log.error("%s", said)
        return pause(left, self._draw())


def due(certificate: Certificate, draw: float) -> int:
    """When a certificate is renewed, in ms since 1970; ``draw`` is from 0 to 1."""
    life = certificate.not_after_ms - certificate.not_before_ms
    share = DUE + JITTER * (2 * draw - 1)
    return certificate.not_before_ms + round(life * share)


def pause(left_seconds: float, draw: float) -> float:
    """Seconds until the next attempt, half as long to half as long again by chance."""
    if left_seconds <= 0:
        return LONGEST_SECONDS * (0.5 + draw)
    usual = min(max(left_seconds / TRIES, SHORTEST_SECONDS), LONGEST_SECONDS)
    return usual * (0.5 + draw)


def _present(files: IdentityFiles) -> tuple[FileKey, Certificate]:
    found = files.present()
    assert found is not None, "nothing removes a certificate while the agent runs"
    return found
