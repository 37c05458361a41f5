"""What a device tells the fleet: statistics windows, sampled predictions, reported state.

All counts are integers, so merging windows is exact and order-free. Packed arrays are
little-endian unsigned 32-bit integers or float32, as the field says.
"""

from typing import Annotated, Literal

import msgspec

from edge_core.release import ReleaseRef

STATS_VERSION = 1
SAMPLE_VERSION = 2
STATE_VERSION = 2
"""Version 2 tells of the trial of a new release and of the device's troubles."""
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
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

MAX_TROUBLES = 16
MAX_EVIDENCE_BYTES = 1024 * 1024
"""What a sample's ``memory`` may unpack to."""


class PairedCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that the active release and the shadow both answered.

    ``agree`` and ``disagree`` count answers; the four others count rows whose label is known,
    so they lag behind. *active* and *shadow* name the release by its role on the device.
    """

    agree: Count = 0
    disagree: Count = 0
    both_right: Count = 0
    only_active_right: Count = 0
    only_shadow_right: Count = 0
    both_wrong: Count = 0


class StatsWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One time slice of one device, release, arm and slice.

    ``counts`` holds, for every channel of the release's ``reference.bin`` in its order, the
    u32 counts (below, bins ..., above, null). ``right`` and ``wrong`` hold u32 counts by bin of
    the confidence channel (same layout as that channel) for rows whose label is known.
    ``latency`` holds u32 counts by power of two of microseconds (bin i: < 2**(i+1) us).
    """

    v: int = STATS_VERSION
    device: Name
    epoch: Name
    """Identity of the device's outbox; ``sequence`` counts within it without gaps."""
    sequence: Count
    opened_ms: int
    closed_ms: int
    release: ReleaseRef
    target: Name
    arm: Arm
    rollout: str | None = None
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
    paired_with: ReleaseRef | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prediction with what it was computed from, for the server's parity replay.

    For features of windows that is the raw window; for those of requests the request and what the
    device remembered that the request can see.
    """

    v: int = SAMPLE_VERSION
    device: Name
    prediction_id: Name
    at_ms: int
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
    at_ms: int
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
    at_ms: int


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
    at_ms: int
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
    troubles: Annotated[list[Text], msgspec.Meta(max_length=MAX_TROUBLES)] = []
    """What stands wrong with the device itself now, its disk first of all; since version 2."""
    probation: Probation | None = None
    """Only while ``update`` is ``probation``."""


class ReportedState1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reported state as version 1 sent it: without the trial."""

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
