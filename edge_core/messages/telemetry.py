"""What a device tells the fleet: statistics windows, sampled predictions, reported state.

All counts are integers, so merging windows is exact and order-free. Arrays of counts are
little-endian int64, those of samples little-endian float32.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np

from edge_core.errors import InvalidMessage
from edge_core.release import ReleaseRef

STATS_VERSION = 2
SAMPLE_VERSION = 2
STATE_VERSION = 2
"""Version 2 tells of trials, fallbacks, commands, placement, dropped shadow rows and troubles."""
ONLINE_VERSION = 1

Arm = Literal["incumbent", "candidate", "control", "shadow", "fallback"]
UpdateState = Literal[
    "idle",
    "downloading",
    "verifying",
    "self_testing",
    "shadowing",
    "activating",
    "probation",
    "committed",
    "recovering",
    "failed",
]
Cause = Literal["missing", "error", "breaker", "command"]
"""Why a baseline answered instead of its model: inputs were missing, the model failed, it had
failed too often to be asked, or somebody ordered it."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
NoisyCount = Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)]
Moment = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""Milliseconds since 1970, UTC, of a clock that may be wrong."""
Text = Annotated[str, msgspec.Meta(max_length=512)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

Consumer = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

TAG_BYTES = 6
"""Of a release's digest: enough to find it among those that a server approved."""
MAX_CONSUMERS = 16
OTHER_CONSUMERS = "(others)"
MAX_TROUBLES = 16
MAX_EVIDENCE_BYTES = 1024 * 1024
"""What a sample's ``memory`` may unpack to."""


class PairedCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that the active release and the shadow both answered.

    ``agree`` and ``disagree`` count answers; the four others count rows whose label is known,
    so they lag behind. *active* and *shadow* name the release by its role on the device. With
    noise they may be negative.
    """

    agree: NoisyCount = 0
    disagree: NoisyCount = 0
    both_right: NoisyCount = 0
    only_active_right: NoisyCount = 0
    only_shadow_right: NoisyCount = 0
    both_wrong: NoisyCount = 0


class PairedCounts1(PairedCounts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same in version 1, which knew no noise."""

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) < 0:
            raise ValueError("a count of pairs is negative")


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answers of one window took. Rows of the arm ``fallback`` tell its fallbacks."""

    cpu_us: Count = 0
    """The window's part, by rows, of the processor time of the whole process."""
    cached: Count = 0
    """Rows that were answered from memory; all others ran through the model."""
    sent_bytes: Count = 0
    """MQTT payloads of the whole device; in one of the windows that it closes together."""
    span_ms: Count = 0
    """Time over which ``sent_bytes`` were counted, by a clock that only goes forward."""
    consumers: Annotated[dict[Consumer, Count], msgspec.Meta(max_length=MAX_CONSUMERS + 1)] = {}
    """Who asked -> rows; beyond so many names, the rest stands under :data:`OTHER_CONSUMERS`."""


class FallbackCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that the baseline answered, by cause."""

    missing: Count = 0
    error: Count = 0
    breaker: Count = 0
    command: Count = 0


class StatsWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One time slice of one device, release, arm and slice, as it is counted and judged.

    On the way it is packed (:mod:`edge_core.messages.windows`). ``counts`` holds, for every
    channel of the release's ``reference.bin`` in its order, the counts (below, bins ..., above,
    null). ``right`` and ``wrong`` hold counts by bin of the confidence channel (same layout as
    that channel) for rows whose label is known. ``latency`` holds counts by power of two of
    microseconds (bin i: < 2**(i+1) us). All four are little-endian int64; an empty one is all
    zeros. Where the manifest asks for noise, counts other than of latency may be negative.
    """

    device: Name
    epoch: Name
    """Identity of the device's outbox; ``sequence`` counts within it without gaps."""
    sequence: Count
    opened_ms: Moment
    closed_ms: Moment
    release: ReleaseRef
    target: Name
    arm: Arm
    rollout: Name | None = None
    slices: dict[Name, Name] = {}
    rows: Count = 0
    errors: Count = 0
    """Rows that the model could not answer (the fallback did, or nobody)."""
    late: Count = 0
    """Samples that were older than one already seen, and events that were not taken."""
    counts: bytes = b""
    latency: bytes = b""
    right: bytes = b""
    wrong: bytes = b""
    paired: PairedCounts | None = None
    """Only in windows of arm ``shadow``; ``release`` is then the shadow release."""
    paired_with: str | None = None
    """The first :data:`TAG_BYTES` of the digest of the release it ran beside, in hex."""
    fallbacks: FallbackCounts | None = None
    """Only in windows of arm ``fallback``, where they sum to ``rows``; version 1 did not say."""
    dropped: Count = 0
    """Rows that a shadow did not answer, since answers come first or its CPU budget was spent."""
    cost: Cost = Cost()


class PackedWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window as it travels; what ``w`` holds is laid out in docs/telemetry.md."""

    v: int = STATS_VERSION
    w: bytes


class StatsWindow1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window as version 1 sent it: every name in full, counts as little-endian u32."""

    v: int = 1
    device: Name
    epoch: Name
    sequence: Count
    opened_ms: Moment
    closed_ms: Moment
    release: ReleaseRef
    target: Name
    arm: Arm
    rollout: str | None = None
    slices: dict[Name, Name] = {}
    rows: Count = 0
    errors: Count = 0
    late: Count = 0
    counts: bytes = b""
    latency: bytes = b""
    right: bytes = b""
    wrong: bytes = b""
    paired: PairedCounts1 | None = None
    paired_with: ReleaseRef | None = None

    def brought_up(self) -> StatsWindow:
        """As it is counted; raise :class:`InvalidMessage` where arrays are not whole."""
        fields = msgspec.structs.asdict(self)
        del fields["v"]
        for name in ("counts", "latency", "right", "wrong"):
            if len(fields[name]) % 4:
                raise InvalidMessage(f"{name} has {len(fields[name])} bytes, not whole counts")
            fields[name] = np.frombuffer(fields[name], "<u4").astype("<i8").tobytes()
        fields["paired_with"] = self.paired_with and self.paired_with.digest[: 2 * TAG_BYTES]
        if self.paired is not None:
            fields["paired"] = PairedCounts(**msgspec.structs.asdict(self.paired))
        return StatsWindow(**fields)


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prediction with what it was computed from, for the server's parity replay.

    For features of windows that is the raw window; for those of requests the request and what the
    device remembered that the request can see.
    """

    v: int = SAMPLE_VERSION
    device: Name
    prediction_id: Name
    at_ms: Moment
    release: ReleaseRef
    target: Name
    arm: Arm
    slices: dict[Name, Name] = {}
    definition: Sha256 | None
    """Of the feature definition that the device computed with; version 1 did not say."""
    window: bytes = b""
    """float32 [samples, inputs], row-major; empty for a request."""
    request: bytes = b""
    """One request, as ``edge_core.features.logs`` packs it; empty for a window."""
    memory: bytes = b""
    """``RequestEvaluator.excerpt`` from before it was asked, packed; empty for a window."""
    features: bytes
    """float32 [features], as the device computed them."""
    scores: bytes
    """float32 [classes]."""


class Sample1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample as version 1 sent it: of a window, without the definition's digest."""

    v: int = 1
    device: Name
    prediction_id: Name
    at_ms: Moment
    release: ReleaseRef
    target: Name
    arm: Arm
    slices: dict[Name, Name] = {}
    window: bytes
    features: bytes
    scores: bytes

    def brought_up(self) -> Sample:
        """As the current version has it."""
        fields = msgspec.structs.asdict(self) | {"v": SAMPLE_VERSION}
        return Sample(definition=None, **fields)


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release that this device would not install, and why."""

    release: ReleaseRef
    reason: Text
    at_ms: Moment


class FallbackMode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model whose baseline answers now, whatever comes."""

    model: Name
    cause: Literal["breaker", "command"]
    reason: Text = ""
    since_ms: Moment
    until_ms: Moment | None = None
    """When an order ends by itself, UTC; none where it does not."""


class CommandOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a command."""

    id: Name
    outcome: Literal["done", "expired", "superseded", "refused"]
    detail: Text = ""
    at_ms: Moment


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the active model's operators really run."""

    operators: dict[Text, Count]
    """By execution provider or delegate."""
    wanted: list[Text] = []
    """Providers or delegates that the target asks for."""
    absent: list[Text] = []
    """Those of them that this device's runtime does not have."""
    fell_back: Count = 0
    """Operators that run elsewhere than wanted."""


class Probation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new release's trial, as far as its device judges it."""

    passed: bool
    """The device's own verdict; where the server has to confirm it, the device waits for that."""
    rows: Count = 0
    errors: Count = 0
    restarts: Count = 0
    verdict: Text = ""


class ReportedState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device's own account of itself (retained)."""

    v: int = STATE_VERSION
    device: Name
    at_ms: Moment
    target: Name
    runtime: Text
    slices: dict[Name, Name] = {}
    desired_revision: Count = 0
    """Revision of the desired state that this report answers; 0 before the first."""
    active: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    shadow: ReleaseRef | None = None
    update: UpdateState = "idle"
    """``committed`` once ``active`` equals what was desired and its probation passed."""
    reason: Text = ""
    """Why the last update failed or recovered; empty when it did not."""
    refusals: list[Refusal] = []
    """The latest few, newest last."""
    fallbacks: list[FallbackMode] = []
    commands: list[CommandOutcome] = []
    """The latest few, newest last."""
    placement: Placement | None = None
    shadow_dropped: Count = 0
    """Rows that no shadow answered for want of time, since the process began."""
    probation: Probation | None = None
    """Only while ``update`` is ``probation``."""
    troubles: Annotated[list[Text], msgspec.Meta(max_length=MAX_TROUBLES)] = []
    """What stands wrong with the device itself now, its disk first of all."""


class ReportedState1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reported state as version 1 sent it."""

    v: int = 1
    device: Name
    at_ms: int
    target: Name
    runtime: Text
    slices: dict[Name, Name] = {}
    desired_revision: Count = 0
    active: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    shadow: ReleaseRef | None = None
    update: UpdateState = "idle"
    reason: Text = ""
    refusals: list[Refusal] = []

    def brought_up(self) -> ReportedState:
        """As the current version has it; the version stays, to tell what the device can read."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return ReportedState(**fields)


class Online(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Presence (retained; the offline form is the MQTT last will)."""

    v: int = ONLINE_VERSION
    device: Name
    online: bool
