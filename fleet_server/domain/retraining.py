"""When a model is trained again, and what may follow from it. Pure."""

from typing import Final, Literal, get_args

import msgspec

Automation = Literal["suggest", "build", "rollout"]
"""``suggest``: a person has to approve the request first; ``build``: a worker takes it at once and
publishes what passes; ``rollout``: what was published is rolled out, too."""
Cause = Literal["person", "drift", "schedule"]
State = Literal[
    "suggested", "open", "taken", "published", "refused", "unchanged", "failed", "cancelled"
]
ENDED: Final[frozenset[State]] = frozenset(
    {"published", "refused", "unchanged", "failed", "cancelled"}
)
RESULTS: Final = ("published", "refused", "unchanged", "failed")
"""How a worker may end a request; ``unchanged``: the release has seen all data that there are."""
MOST_ATTEMPTS: Final = 3
"""Times that a request is given to a worker; one that falls silent each time is given up."""
DAY_MS: Final = 86_400_000
AUTOMATIONS: Final[tuple[Automation, ...]] = get_args(Automation)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """When a model asks for training by itself."""

    model: str
    every_days: float | None = None
    """So long after the last request for it ended; none: never."""
    on_drift: bool = True
    cooldown_days: float = 1.0
    """No request by itself so long after the last one: a drift that training does not end would ask
    without end."""
    automation: Automation = "suggest"


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model's requests."""

    unfinished: bool
    last_ms: int | None
    """When the newest one was made or ended; none where there was none."""
    since_ms: int
    """When the policy was set: a schedule begins there."""


def due(policy: Policy, past: Past, now_ms: int, *, drifting: bool) -> Cause | None:
    """Why a request should be made now; none where none should."""
    if past.unfinished:
        return None
    last = past.last_ms if past.last_ms is not None else past.since_ms
    waited = (now_ms - last) / DAY_MS
    cooled = past.last_ms is None or waited >= policy.cooldown_days
    if drifting and policy.on_drift and cooled:
        return "drift"
    if policy.every_days is not None and waited >= max(policy.every_days, policy.cooldown_days):
        return "schedule"
    return None


def first_state(automation: Automation, cause: Cause) -> State:
    """Where a request begins: what a person asks for needs no second word."""
    return "suggested" if automation == "suggest" and cause != "person" else "open"


def lost(attempts: int) -> State:
    """Where a request goes whose worker fell silent."""
    return "failed" if attempts >= MOST_ATTEMPTS else "open"
