"""A server's data folder in which a rollout is just about to make one transition of the table."""

import time
from collections.abc import Callable
from typing import Any, Final

from edge_core.release import ReleaseRef
from fleet_server.config import ServerConfig
from fleet_server.domain.rollout import TABLE, Event, State
from tests.fleet_server.conftest import Clock
from tests.simulators.spoken_fleet import SpokenFleet

Edge = tuple[State, Event]
EDGES: Final[list[Edge]] = [
    (state, event) for state, row in TABLE.items() for event, after in row.items() if after
]
"""Every transition that there is."""
NAMES: Final = [f"d{number:02}" for number in range(6)]
ROLLOUT: Final = "r1"
DEADLINE_SECONDS = 600.0
CANARY: Final[dict[str, Any]] = {"kind": "canary", "share": 0.34, "min_seconds": 0}
RAMP: Final[dict[str, Any]] = {"kind": "ramp", "share": 0.5, "min_seconds": 0}
BETTER: Final = {"candidate": (530, 70), "incumbent": (450, 150)}
WORSE: Final = {"candidate": (600, 5400), "incumbent": (4500, 1500)}


class RolloutBefore:
    """A fleet whose rollout of a second release gets to a state and is given cause to leave it.

    What only people cause is left to them.
    """

    def __init__(self, config: ServerConfig, refs: tuple[ReleaseRef, ...], edge: Edge) -> None:
        """Open a data folder whose repository lists the releases, the first one in production."""
        self._state, self._event = edge
        self.clock = Clock()
        self.clock.now = time.time_ns() // 1_000_000 - 5_000
        if self._event in (Event.DEADLINE, Event.STRANDED) or self._state == "inconclusive":
            self.clock.now -= round(1000 * DEADLINE_SECONDS)
        self.fleet = SpokenFleet(config, self.clock)
        for ref in refs:
            self.fleet.approve(ref)
        self.fleet.produce(refs[0], NAMES)
        self._new = refs[1]

    def come(self) -> None:
        """Get there."""
        rollouts = self.fleet.services.rollouts
        rollouts.start(self._new.name, self._plan(), "ann")
        self.fleet.obey()
        ramp = (self._state, self._event) not in _IN_THE_CANARY
        if ramp:
            self.fleet.pass_stage(ROLLOUT)
            self.fleet.obey()
        if self._state in ("needs_approval", "promoting"):
            self.fleet.pass_stage(ROLLOUT)
        elif self._state == "paused":
            rollouts.pause(ROLLOUT, "ann", "lunch")
        elif self._state == "inconclusive":
            self.fleet.decide(DEADLINE_SECONDS + 1)
            self.fleet.obey()
        elif self._state == "rolling_back":
            rollouts.roll_back(ROLLOUT, "ann", "bad")
        assert rollouts.one(ROLLOUT).state == self._state
        CAUSES[self._state, self._event](self)

    def _plan(self) -> dict[str, Any]:
        asks = self._state == "needs_approval" or self._event is Event.NEEDS_APPROVAL
        follows = self._event is Event.STAGE_PASSED
        return {
            "stages": [CANARY, RAMP | {"approvals": int(asks and follows)}],
            "strata": [],
            "deadline_seconds": DEADLINE_SECONDS,
            "promotion_approvals": int(asks and not follows),
        }

    def better(self) -> None:
        """The candidate's devices show that it is better."""
        self.fleet.speak(ROLLOUT, **BETTER)

    def worse(self) -> None:
        """They show that it is worse, whatever they showed before."""
        self.fleet.speak(ROLLOUT, **WORSE)

    def approved(self) -> None:
        """Somebody else has approved what follows."""
        self.fleet.services.rollouts.approve(ROLLOUT, "bob", "")

    def obeyed(self) -> None:
        """Every device has done what it should."""
        self.fleet.obey()

    def dawdled(self) -> None:
        """All but one have."""
        self.fleet.obey(but=[NAMES[0]])

    def refused(self) -> None:
        """Devices will not install the release."""
        for name in NAMES[:2]:
            self.fleet.refuse(name, self._new)

    def nothing(self) -> None:
        """It is for people, or for time."""


_IN_THE_CANARY: Final[frozenset[Edge]] = frozenset(
    {("running", Event.STAGE_PASSED), ("needs_approval", Event.STAGE_PASSED)}
)
BY_PEOPLE: Final = frozenset(
    {Event.PAUSE, Event.RESUME, Event.ROLL_BACK, Event.ABORT, Event.SUPERSEDE}
)
"""Events that are calls of the API."""
CAUSES: Final[dict[Edge, Callable[[RolloutBefore], None]]] = {
    **{edge: RolloutBefore.nothing for edge in EDGES if edge[1] in BY_PEOPLE},
    **{edge: RolloutBefore.worse for edge in EDGES if edge[1] is Event.WORSE},
    ("running", Event.STAGE_PASSED): RolloutBefore.better,
    ("running", Event.LAST_PASSED): RolloutBefore.better,
    ("running", Event.NEEDS_APPROVAL): RolloutBefore.better,
    ("running", Event.DEADLINE): RolloutBefore.nothing,
    ("needs_approval", Event.STAGE_PASSED): RolloutBefore.approved,
    ("needs_approval", Event.LAST_PASSED): RolloutBefore.approved,
    ("promoting", Event.DEADLINE): RolloutBefore.dawdled,
    ("promoting", Event.CONFIRMED): RolloutBefore.obeyed,
    ("promoting", Event.WORSE): RolloutBefore.refused,
    ("rolling_back", Event.CONFIRMED): RolloutBefore.obeyed,
    ("rolling_back", Event.STRANDED): RolloutBefore.dawdled,
}
"""What lets each transition happen; one that is missing here was never tried."""
