"""How a rollout is to go: stages, margins, patience."""

import difflib
import re
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edge_core.errors import InvalidConfiguration

PLAN_VERSION = 2
READ_VERSIONS = (1, 2)
"""Version 2 adds holdouts, approvals, groups, pacing and attempts; version 1 is a plan without."""
MAX_PLAN_BYTES = 64 * 1024

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
StageKind = Literal["shadow", "canary", "ramp"]
Approvals = Annotated[int, msgspec.Meta(ge=0, le=5)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the plan."""


class Stage(_Record, frozen=True, kw_only=True):
    """One step: which share of the fleet, and what has to pass before the next."""

    kind: StageKind
    share: Share | None = None
    """Of the devices that take part; either this or ``devices``."""
    devices: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """So many of them, however large the fleet is."""
    min_seconds: Seconds = 600.0
    min_devices: Annotated[int, msgspec.Meta(ge=1)] = 2
    approvals: Approvals = 0
    """People who have to approve before it begins; none of them may have started the rollout."""

    def __post_init__(self) -> None:
        if (self.share is None) == (self.devices is None):
            raise ValueError("a stage has either share or devices")

    @property
    def size(self) -> str:
        """Its share or number of devices, in words."""
        return f"{self.devices} devices" if self.share is None else f"{self.share:.0%}"


class Metric(_Record, frozen=True, kw_only=True):
    """How one metric is judged; what is left out follows from the plan's own fields."""

    margin: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] | None = None
    """Roll back on evidence that the candidate is worse by more than this."""
    allowed: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] | None = None
    """Promote on evidence that it is not worse by more than this."""
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] | None = None
    """Chance of either mistake."""


class Metrics(_Record, frozen=True, kw_only=True):
    """What is judged. Only accuracy needs evidence before a promotion; all others guard."""

    accuracy: Metric = Metric()
    """Margin and allowed: ``delta``."""
    slices: Metric = Metric()
    """Accuracy on each declared slice. Margin: ``delta``; allowed: twice that."""
    errors: Metric = Metric()
    """Rows without an answer. Margin: ``error_margin``."""
    latency: Metric = Metric()
    """Rows slower than 19 of 20 of the control's. Margin: ``latency_margin``."""
    fallback: Metric = Metric(margin=0.05)
    """Rows that the baseline answered on candidate devices, beside those on the control's."""
    scores: Metric = Metric(margin=0.25)
    """Rows with a confidence in the outer fifth of the release's reference, beside the
    incumbent's in its own."""


class Disruption(_Record, frozen=True, kw_only=True):
    """How many devices of one place may be changing at once."""

    per: str = "site"
    """``site``, or a slice of devices."""
    most: Annotated[int, msgspec.Meta(ge=1)] | None = None
    share: Share | None = None
    """Of the place's devices, at least one; either this or ``most``."""

    def __post_init__(self) -> None:
        if (self.most is None) == (self.share is None):
            raise ValueError("disruption has either most or share")


class MaintenanceWindow(_Record, frozen=True, kw_only=True):
    """A time of the week in which devices may be given a new release; going back needs none."""

    days: Annotated[list[Weekday], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: list(WEEKDAYS)
    )
    """Days on which it begins."""
    begin: TimeOfDay
    end: TimeOfDay
    """One that is not later than ``begin`` lies on the next day."""
    zone: str = "UTC"
    """IANA name of the time zone."""
    site: str | None = None
    """Only for devices there; for all others where left out."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"unknown time zone {self.zone!r}") from error


class Plan(_Record, frozen=True, kw_only=True):
    """A rollout's rules. Accuracy is the share of labelled rows that were right."""

    v: int = PLAN_VERSION
    stages: Annotated[list[Stage], msgspec.Meta(min_length=1, max_length=16)]
    strata: list[str] = msgspec.field(default_factory=lambda: ["side"])
    """Slices of devices within which cohorts are drawn."""
    group: str = ""
    """Which devices take part: a group's name or a query; all that fit where left out."""
    holdout: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    """Share of devices, drawn at random, that stay on the incumbent, after the end as well."""
    disruption: Disruption | None = None
    maintenance: list[MaintenanceWindow] = []
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    """How often a device is asked; one that fails each time is given up."""
    retry_seconds: Annotated[float, msgspec.Meta(ge=1)] = 300.0
    """Wait before the second attempt; twice as long before each further one."""
    promotion_approvals: Approvals = 0
    """People who have to approve before the whole fleet follows; none may have started it."""
    delta: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    """Accuracy that the candidate may lose before it counts as worse."""
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    rows_per_observation: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    """Rows of one device overlap; evidence is raised to the power of 1 over this."""
    device_correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.003
    """How alike a device's observations are beyond that: one device never weighs more than 1 over
    this in observations, however long it runs."""
    min_slice_rows: Annotated[int, msgspec.Meta(ge=1)] = 50
    """Labelled rows that each declared slice has to show before a promotion; also the rows that a
    first release has to serve."""
    error_margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.02
    latency_margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25
    """Share of rows slower than 19 of 20 of the control's that the candidate may add."""
    metrics: Metrics = Metrics()
    max_lost_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """Share of candidate devices that may refuse, fall silent or not get there."""
    device_timeout_seconds: Seconds = 900.0
    """Silence after which a device counts as lost."""
    deadline_seconds: Seconds = 7 * 24 * 3600.0
    """Time in one stage after which a person is asked."""

    def __post_init__(self) -> None:
        order = ["shadow", "canary", "ramp"]
        ranks = [order.index(stage.kind) for stage in self.stages]
        if ranks != sorted(ranks):
            raise ValueError("stages have to go from shadow over canary to ramp")
        for kind in ("canary", "ramp"):
            of_kind = [stage for stage in self.stages if stage.kind == kind]
            for sizes in (
                [stage.share for stage in of_kind if stage.share is not None],
                [stage.devices for stage in of_kind if stage.devices is not None],
            ):
                if sizes != sorted(sizes):
                    raise ValueError(f"sizes of {kind} stages have to grow")


DEFAULT_PLAN = Plan(
    stages=[
        Stage(kind="shadow", share=1.0),
        Stage(kind="canary", share=0.1),
        Stage(kind="ramp", share=0.5),
    ]
)


def parse(data: bytes) -> Plan:
    """Parse a plan from JSON; raise :class:`InvalidConfiguration` in one line."""
    if len(data) > MAX_PLAN_BYTES:
        raise InvalidConfiguration(f"plan has {len(data)} bytes; the limit is {MAX_PLAN_BYTES}")
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfiguration(f"plan is not valid: {error}{_meant(str(error))}") from error
    if plan.v not in READ_VERSIONS:
        raise InvalidConfiguration(f"plan has version {plan.v}; known are {READ_VERSIONS}")
    return plan


def _meant(said: str) -> str:
    """The known name that an unknown one is nearest to, in words."""
    found = re.search(r"unknown field `([^`]*)`", said)
    parts = (Plan, Stage, Disruption, MaintenanceWindow, Metrics, Metric)
    known = sorted({name for part in parts for name in part.__struct_fields__})
    near = difflib.get_close_matches(found[1], known, 1) if found else []
    return f"; did you mean {near[0]}?" if near else ""


def stages_for(plan: Plan, *, has_incumbent: bool) -> list[Stage]:
    """Stages that make sense: a first release has nothing to run in the shadow of.

    None are left of a plan for a first release that has only shadow stages.
    """
    return [stage for stage in plan.stages if has_incumbent or stage.kind != "shadow"]
