"""A worker's turns: contested answers first, then one request to train again."""

import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console

from converters import progress
from converters.appeals.answering import Shelf, answer_waiting
from converters.appeals.server import FleetAppeals
from converters.retraining.server import FleetRequests, LeaseLost
from converters.retraining.worker import Outcome, Place, carry_out
from edge_core.errors import Unavailable

POLL_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What a worker works with, and for which models."""

    console: Console
    place: Place
    requests: FleetRequests
    appeals: FleetAppeals
    shelf: Shelf
    name: str
    models: list[str]

    def greet(self) -> None:
        """Say who works on what."""
        self._say(f"worker {self.name} builds {', '.join(self.models)}")

    def take_one(self) -> Outcome | None:
        """Answer what waits, and carry out one request; none where none is open.

        Raises:
            Unavailable: the server or the network.
            LeaseLost: somebody else has the request now.
        """
        answer_waiting(self.shelf, self.appeals, self._say)
        claimed = self.requests.claim(self.name, self.models)
        if claimed is None:
            return None
        self._say(f"request {claimed.request}: {claimed.model}: {claimed.reason}")
        with progress.shown(self.console) as report:
            outcome = carry_out(self.place, self.requests, claimed, report)
        self._say(f"request {claimed.request} {outcome.state}: {outcome.text}")
        return outcome

    def go_on(self) -> NoReturn:
        """Take one after the other for ever; what fails for now is said and tried again."""
        while True:
            try:
                done = self.take_one()
            except (LeaseLost, Unavailable) as error:
                sys.stderr.write(f"serinus-convert: {error}\n")
                done = None
            if done is None:
                time.sleep(POLL_SECONDS)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)
