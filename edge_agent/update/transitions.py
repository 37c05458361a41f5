"""The update state machine: one table. No I/O, no clock.

Each row says what happens when an event meets a state, and what is done on entering the next
state. Actions are idempotent: after a power cut, :data:`ON_RESTART` names the event with which
the stored state goes on.
"""

from enum import StrEnum
from typing import Final, NamedTuple, get_args

from edge_core.messages.telemetry import UpdateState


class Event(StrEnum):
    """What can happen to an update."""

    DESIRED = "desired"
    """The server wants something new."""
    DONE = "done"
    """The state's action succeeded."""
    REFUSED = "refused"
    """The state's action found a reason not to go on."""
    UNCHANGED = "unchanged"
    """Activating had nothing to switch."""
    RESUME = "resume"
    """The process started again in this state."""
    GIVE_UP = "give_up"
    """The process started too often in this state, or nobody knows the state."""
    CRASHING = "crashing"
    """The process started too often where nothing new was tried, and never ran for a while."""


class Action(StrEnum):
    """What the updater does on entering a state."""

    NOTHING = "nothing"
    DOWNLOAD = "download"
    VERIFY = "verify"
    SELF_TEST = "self_test"
    LOAD_SHADOW = "load_shadow"
    ACTIVATE = "activate"
    WATCH = "watch"
    RECOVER = "recover"
    STAND_DOWN = "stand_down"
    CLEAN_UP = "clean_up"


class Row(NamedTuple):
    """Next state, and the action on entering it."""

    next: UpdateState
    action: Action


STATES: Final[tuple[UpdateState, ...]] = get_args(UpdateState)

_BEGIN = Row("downloading", Action.DOWNLOAD)
_FAIL = Row("failed", Action.CLEAN_UP)
_RECOVER = Row("recovering", Action.RECOVER)

# Starts are counted wherever a row says how to give up. A download has none: it is cut as often
# as the power is, and what was fetched stays. A committed release has one for its shadow.
# Whatever serves and ends the process again and again has to go in every state.
TABLE: Final[dict[tuple[UpdateState, Event], Row]] = {
    ("idle", Event.DESIRED): _BEGIN,
    ("downloading", Event.DESIRED): _BEGIN,
    ("downloading", Event.DONE): Row("verifying", Action.VERIFY),
    ("downloading", Event.REFUSED): _FAIL,
    ("downloading", Event.RESUME): _BEGIN,
    ("verifying", Event.DESIRED): _BEGIN,
    ("verifying", Event.DONE): Row("self_testing", Action.SELF_TEST),
    ("verifying", Event.REFUSED): _FAIL,
    ("verifying", Event.RESUME): _BEGIN,
    ("verifying", Event.GIVE_UP): _FAIL,
    ("self_testing", Event.DESIRED): _BEGIN,
    ("self_testing", Event.DONE): Row("shadowing", Action.LOAD_SHADOW),
    ("self_testing", Event.REFUSED): _FAIL,
    ("self_testing", Event.RESUME): _BEGIN,
    ("self_testing", Event.GIVE_UP): _FAIL,
    ("shadowing", Event.DESIRED): _BEGIN,
    ("shadowing", Event.DONE): Row("activating", Action.ACTIVATE),
    ("shadowing", Event.REFUSED): _FAIL,
    ("shadowing", Event.RESUME): _BEGIN,
    ("shadowing", Event.GIVE_UP): _FAIL,
    ("activating", Event.DESIRED): _BEGIN,
    ("activating", Event.DONE): Row("probation", Action.WATCH),
    ("activating", Event.UNCHANGED): Row("committed", Action.CLEAN_UP),
    ("activating", Event.REFUSED): _RECOVER,
    ("activating", Event.RESUME): _BEGIN,
    ("activating", Event.GIVE_UP): _RECOVER,
    ("probation", Event.DESIRED): _BEGIN,
    ("probation", Event.DONE): Row("committed", Action.CLEAN_UP),
    ("probation", Event.REFUSED): _RECOVER,
    ("probation", Event.RESUME): Row("probation", Action.WATCH),
    ("probation", Event.GIVE_UP): _RECOVER,
    ("committed", Event.DESIRED): _BEGIN,
    ("committed", Event.REFUSED): _RECOVER,
    ("committed", Event.GIVE_UP): _FAIL,
    ("recovering", Event.DESIRED): _BEGIN,
    ("recovering", Event.DONE): _FAIL,
    ("recovering", Event.REFUSED): _FAIL,
    ("recovering", Event.RESUME): _RECOVER,
    ("recovering", Event.GIVE_UP): Row("failed", Action.STAND_DOWN),
    ("failed", Event.DESIRED): _BEGIN,
    **{(state, Event.CRASHING): _RECOVER for state in STATES if state != "recovering"},
}

ON_RESTART: Final[dict[UpdateState, Event | None]] = {
    "idle": None,
    "downloading": Event.RESUME,
    "verifying": Event.RESUME,
    "self_testing": Event.RESUME,
    "shadowing": Event.RESUME,
    "activating": Event.RESUME,
    "probation": Event.RESUME,
    "committed": None,
    "recovering": Event.RESUME,
    "failed": None,
}


def known(state: str) -> UpdateState:
    """A stored state by its name; one that nobody knows is being recovered."""
    return next((name for name in STATES if name == state), "recovering")


def after(state: UpdateState, event: Event) -> Row | None:
    """The row for an event in a state; none where the event means nothing there."""
    return TABLE.get((state, event))


def counts(state: str) -> bool:
    """Whether starts of the process in this state are counted and bounded."""
    return (state, Event.GIVE_UP) in TABLE


def begins_again(state: UpdateState) -> bool:
    """Whether a restart in this state goes the whole way again, so that its count has to stay."""
    return TABLE.get((state, Event.RESUME)) == _BEGIN


def exhausted(state: str, starts: int, max_starts: int) -> bool:
    """Whether the process started too often in this state."""
    return counts(state) and starts > max_starts


def restart(state: str, starts: int, max_starts: int, *, crashing: bool = False) -> Row | None:
    """How a stored state goes on after a start of the process; none where it rests.

    A state that this version does not know recovers; one with too many starts gives up. The state's
    own count goes first: while a release is tried, what serves beside it is not to blame.
    """
    if state not in ON_RESTART:
        return _RECOVER
    stored = known(state)
    if exhausted(stored, starts, max_starts):
        return TABLE[stored, Event.GIVE_UP]
    if crashing and (stored, Event.CRASHING) in TABLE:
        return TABLE[stored, Event.CRASHING]
    event = ON_RESTART[stored]
    return TABLE[stored, event] if event else None
