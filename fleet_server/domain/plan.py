"""How a rollout is to go: stages, margins, patience."""

from typing import Annotated, Literal

import msgspec

from edge_core.errors import InvalidConfiguration

PLAN_VERSION = 1
MAX_PLAN_BYTES = 64 * 1024

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
StageKind = Literal["shadow", "canary", "ramp"]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the plan."""


class Stage(_Record, frozen=True, kw_only=True):
    """One step: which share of the fleet, and what has to pass before the next."""

    kind: StageKind
    share: Share
    min_seconds: Seconds = 600.0
    min_devices: Annotated[int, msgspec.Meta(ge=1)] = 2


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


class Plan(_Record, frozen=True, kw_only=True):
    """A rollout's rules. Accuracy is the share of labelled rows that were right."""

    v: int = PLAN_VERSION
    stages: Annotated[list[Stage], msgspec.Meta(min_length=1, max_length=16)]
    strata: list[str] = msgspec.field(default_factory=lambda: ["side"])
    """Slices of devices within which cohorts are drawn."""
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
            shares = [stage.share for stage in self.stages if stage.kind == kind]
            if shares != sorted(shares):
                raise ValueError(f"shares of {kind} stages have to grow")


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
        raise InvalidConfiguration(f"plan is not valid: {error}") from error
    if plan.v != PLAN_VERSION:
        raise InvalidConfiguration(f"plan has version {plan.v}; known is {PLAN_VERSION}")
    return plan


def stages_for(plan: Plan, *, has_incumbent: bool) -> list[Stage]:
    """Stages that make sense: a first release has nothing to run in the shadow of.

    None are left of a plan for a first release that has only shadow stages.
    """
    return [stage for stage in plan.stages if has_incumbent or stage.kind != "shadow"]
