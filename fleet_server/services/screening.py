"""Which windows and samples cannot be true. A device can only ever be refused, never believed more.

Pure: values in, a reason out.
"""

import math

import msgspec
import numpy as np

from edge_core import packed
from edge_core.errors import InvalidInput
from edge_core.features.request_definition import RequestDefinition
from edge_core.messages.telemetry import MAX_EVIDENCE_BYTES, Sample, StatsWindow
from edge_core.stats import latency, noise
from fleet_server.services.catalog import Release
from fleet_server.storage.windows import Totals

MAX_ROWS = 1_000_000_000
"""In one window: 50,000 rows a second make 180 million in an hour."""
EARLIEST_MS = 1_577_836_800_000
"""2020: a clock before it was never set."""
LONGEST_MS = 8 * 86_400_000
"""A window that seems longer has seen its clock jump."""
SPARE_LABELS = 100
SPARE_SHARE = 0.05
"""Labels beyond the reported rows that are forgiven: a window with rows may have been lost."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message is not taken in: a short reason to count by, and the particulars."""

    reason: str
    detail: str


def labelled(window: StatsWindow) -> tuple[int, int]:
    """Rows of the window whose label came, as (right, wrong)."""
    return _sum(window.right), _sum(window.wrong)


def scores(window: StatsWindow, release: Release) -> tuple[int, int]:
    """Rows of the window whose confidence was counted, and the unusual ones among them."""
    if not window.counts:
        return 0, 0
    found = counts(window)[release.layout.slice_of("confidence")]
    return int(found.sum()), int(found[release.layout.unusual_confidence].sum())


def counts(window: StatsWindow) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The window's channel counts, int64 [channels' bins]."""
    return np.frombuffer(window.counts, dtype="<i8").astype(np.int64)


def window_rejection(
    window: StatsWindow, release: Release | None, before: Totals
) -> Rejection | None:
    """Judge one window.

    Args:
        window: as decoded.
        release: the one it names, none where the server does not know it.
        before: the device's sums for that release and arm so far.
    """
    if release is None or release.ref != window.release:
        return Rejection(reason="unknown release", detail=window.release.name)
    return (
        _declared(window, release)
        or _causes(window)
        or _cost(window)
        or _arrays(window, release)
        or _labels(window, release, before)
    )


def _causes(window: StatsWindow) -> Rejection | None:
    """Baselines answer for some cause, and only their windows say which; only shadows drop rows."""
    if window.dropped and (window.arm != "shadow" or window.dropped > MAX_ROWS):
        return Rejection(
            reason="impossible counts", detail=f"{window.dropped} rows dropped by {window.arm}"
        )
    if window.fallbacks is None:
        return None
    caused = sum(msgspec.structs.astuple(window.fallbacks))
    if window.arm != "fallback" or caused != window.rows:
        return Rejection(
            reason="impossible counts",
            detail=f"causes of {caused} of {window.rows} rows of {window.arm}",
        )
    return None


def _cost(window: StatsWindow) -> Rejection | None:
    """No more rows are asked for, or come from memory, than were answered; nobody asks a shadow."""
    most = 0 if window.arm == "shadow" else window.rows
    asked = sum(window.cost.consumers.values())
    if asked > most or window.cost.cached > most:
        return Rejection(
            reason="impossible counts",
            detail=f"{asked} rows asked for, {window.cost.cached} from memory, of {most}",
        )
    return None


def clock_is_wrong(window: StatsWindow, latest_ms: int) -> bool:
    """Whether the device cannot have had the right time; its counts are as true as any.

    Args:
        window: as decoded.
        latest_ms: a window may not close later than this.
    """
    span = window.closed_ms - window.opened_ms
    return (
        window.opened_ms < EARLIEST_MS
        or window.closed_ms > latest_ms
        or not 0 <= span <= LONGEST_MS
    )


def sample_rejection(sample: Sample, release: Release | None) -> Rejection | None:
    """Judge one sampled prediction, whenever its device thinks that it was."""
    if release is None or release.ref != sample.release:
        return Rejection(reason="unknown release", detail=sample.release.name)
    definition = release.definition
    if sample.definition not in (None, release.definition_digest):
        return Rejection(
            reason="another feature definition",
            detail=f"computed by {sample.definition}, not {release.definition_digest}",
        )
    of_requests = isinstance(definition, RequestDefinition)
    shapes = {
        "window": (sample.window, 0 if of_requests else math.prod(definition.raw_shape)),
        "features": (sample.features, len(definition.feature_names)),
        "scores": (sample.scores, len(release.manifest.output.classes)),
    }
    for name, (data, values) in shapes.items():
        if len(data) != 4 * values:
            return Rejection(
                reason="wrong length", detail=f"{name} has {len(data)} bytes, not {4 * values}"
            )
    return _redacted(sample, release) or _evidence(
        sample, of_requests=of_requests, kept=release.redaction.keeps_requests
    )


def _redacted(sample: Sample, release: Release) -> Rejection | None:
    """Nothing may come that the release keeps on its devices."""
    columns = len(release.definition.input_names)
    window = np.frombuffer(sample.window, "<f4").reshape(-1, max(columns, 1))
    features = np.frombuffer(sample.features, "<f4")
    if not release.redaction.is_kept(window, features):
        return Rejection(
            reason="redacted values",
            detail=f"{release.ref.name} keeps {', '.join(sorted(release.redaction.redacted))}",
        )
    return None


def _evidence(sample: Sample, *, of_requests: bool, kept: bool) -> Rejection | None:
    """What a request was computed from has to be there, and may not unpack to a flood."""
    if of_requests and not kept:
        if sample.request or sample.memory:
            return Rejection(reason="redacted values", detail="the request came along")
        return None
    if not of_requests:
        if sample.request or sample.memory:
            return Rejection(reason="wrong evidence", detail="a window comes with a request")
        return None
    if not sample.request:
        return Rejection(reason="wrong evidence", detail="the request is missing")
    try:
        packed.unpack(sample.memory, MAX_EVIDENCE_BYTES)
    except InvalidInput as error:
        return Rejection(reason="wrong evidence", detail=str(error))
    return None


def _declared(window: StatsWindow, release: Release) -> Rejection | None:
    """Targets and slices have to be ones that the release's manifest names."""
    if window.target not in release.targets:
        return Rejection(reason="unknown target", detail=window.target)
    for name, value in window.slices.items():
        if value not in release.manifest.slices.get(name, []):
            return Rejection(reason="undeclared slice", detail=f"{name}={value}")
    return None


def _arrays(window: StatsWindow, release: Release) -> Rejection | None:
    """Packed arrays have to fit the release's reference, and no channel may count too often."""
    layout = release.layout
    labels = 8 * layout.confidence_size
    for name, data, lengths in (
        ("counts", window.counts, (0, 8 * layout.total)),
        ("latency", window.latency, (0, 8 * latency.BINS)),
        ("right", window.right, (0, labels)),
        ("wrong", window.wrong, (0, labels)),
    ):
        if len(data) not in lengths:
            return Rejection(
                reason="wrong length", detail=f"{name} has {len(data)} bytes, not {lengths[1]}"
            )
    if window.rows + window.errors > MAX_ROWS:
        return Rejection(
            reason="impossible counts", detail=f"{window.rows} rows, {window.errors} errors"
        )
    return _channels(window, release) or _negative(window, release)


def _channels(window: StatsWindow, release: Release) -> Rejection | None:
    """No channel may count more values than the rows have, but for its noise."""
    if not window.counts:
        return None
    schema, merged = release.window_schema, counts(window)
    sums = np.add.reduceat(merged, release.layout.starts)
    most = np.array(schema.values) * window.rows
    if schema.epsilon is not None:
        pairs = zip(schema.channel_ratios, schema.sizes, strict=True)
        most = most + np.array([noise.bound(ratio, size) for ratio, size in pairs])
    over = np.flatnonzero(sums > most)
    if not len(over):
        return None
    channel = release.reference.channels[over[0]]
    return Rejection(
        reason="impossible counts",
        detail=f"channel {channel.name} counts {sums[over[0]]} values of {window.rows} rows",
    )


def _negative(window: StatsWindow, release: Release) -> Rejection | None:
    """Only noise makes counts negative, and never those of latency."""
    exact = [window.latency]
    if release.window_schema.epsilon is None:
        exact += [window.counts, window.right, window.wrong]
        if window.paired is not None and min(msgspec.structs.astuple(window.paired)) < 0:
            return Rejection(reason="impossible counts", detail="a count of pairs is negative")
    if any(data and int(np.frombuffer(data, "<i8").min()) < 0 for data in exact):
        return Rejection(reason="impossible counts", detail="a count is negative")
    return None


def _labels(window: StatsWindow, release: Release, before: Totals) -> Rejection | None:
    """Labels come late, but never for more rows than the device reported.

    With noise nobody can say so; no verdict is drawn from labels then.
    """
    if window.paired is not None and window.arm != "shadow":
        return Rejection(reason="impossible counts", detail=f"pairs in arm {window.arm}")
    if release.window_schema.epsilon is not None:
        return _noisy_outcomes(window)
    rows = before.rows + window.rows
    known = before.right + before.wrong + sum(labelled(window))
    if known > rows * (1 + SPARE_SHARE) + SPARE_LABELS:
        return Rejection(reason="impossible counts", detail=f"{known} labels for {rows} rows")
    if window.paired is None:
        return None
    pairs = before.paired + window.paired.agree + window.paired.disagree
    known = before.paired_labelled + paired_labels(window)
    if pairs > rows or known > pairs * (1 + SPARE_SHARE) + SPARE_LABELS:
        return Rejection(
            reason="impossible counts", detail=f"{known} labelled pairs of {pairs} in {rows} rows"
        )
    return None


def _noisy_outcomes(window: StatsWindow) -> Rejection | None:
    pairs = msgspec.structs.astuple(window.paired) if window.paired else ()
    largest = max(map(abs, (*labelled(window), *pairs)))
    if largest > MAX_ROWS:
        return Rejection(reason="impossible counts", detail=f"{largest} outcomes in a window")
    return None


def paired_labels(window: StatsWindow) -> int:
    """Rows of the window that both releases answered and whose label came."""
    paired = window.paired
    if paired is None:
        return 0
    return (
        paired.both_right + paired.only_active_right + paired.only_shadow_right + paired.both_wrong
    )


def _sum(packed: bytes) -> int:
    return int(np.frombuffer(packed, dtype="<i8").sum(dtype=np.int64)) if packed else 0
