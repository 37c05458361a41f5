"""What a verdict is made from: counts and facts, nothing else. Stored with every verdict."""

import msgspec

from edge_core.messages.telemetry import Arm
from fleet_server.domain.cohort import Role
from fleet_server.domain.packed_cells import PackedCells

METHOD = 2
"""How evidence that is gathered now is judged; what is stored is judged as it was then.

1. Rows of a device weigh less the more there are of them.
2. Besides, evidence has to stand without any one device, a device counts for twice the usual rows
   at most, and scores and fallbacks are watched (ADR 0020).
"""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the evidence."""


class Cell(_Record, frozen=True, kw_only=True):
    """Counts of one device, arm and slice since the stage began.

    In a shadow stage the arm ``shadow`` is the candidate; in canary and ramp it is the
    incumbent, scored on the candidate's rows. Paired counts stand in cells of arm ``shadow``.
    """

    device: str
    arm: Arm
    slice: str = ""
    rows: int = 0
    errors: int = 0
    right: int = 0
    wrong: int = 0
    latency: list[int] = []
    both_right: int = 0
    only_active_right: int = 0
    only_shadow_right: int = 0
    both_wrong: int = 0
    scored: int = 0
    """Rows whose confidence was counted."""
    unusual: int = 0
    """Those of them in the outer bins of the release's own reference, a tenth at either end."""


class Baseline(_Record, frozen=True, kw_only=True):
    """What the incumbent did on a device before the stage."""

    device: str
    slice: str = ""
    right: int = 0
    wrong: int = 0


class Member(_Record, frozen=True, kw_only=True, gc=False):
    """What became of one device's order."""

    device: str
    role: Role
    confirmed: bool
    """It reports what it should run, past probation."""
    refused: bool = False
    """It would not install the candidate, or recovered from it."""
    silent: bool = False
    """Nothing was heard of it for the plan's timeout."""


class Evidence(_Record, frozen=True, kw_only=True):
    """Everything that one judgement looks at."""

    method: int = 1
    """Stored evidence that does not say is of the first."""
    cells: list[Cell] = []
    packed: PackedCells | None = None
    """More cells, as the server gathers them."""
    baselines: list[Baseline] = []
    members: list[Member]
    slices: list[str] = []
    """Declared slice values, ``name=value``, that the fleet's devices have."""
    elapsed_seconds: float
    has_incumbent: bool
    drifting: bool = False
    """The world is drifting: what is seen now proves nothing about later."""
    noisy: bool = False
    """Labels and pairs carry noise for privacy: no outcome is drawn from them."""
