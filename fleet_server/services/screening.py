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
from edge_core.stats import latency
from fleet_server.services.catalog import Release
from fleet_server.storage.windows import Totals

MAX_ROWS = 1_000_000
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


def counts(window: StatsWindow) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The window's channel counts, int64 [channels' bins]."""
    return np.frombuffer(window.counts, dtype="<u4").astype(np.int64)


def window_rejection(
    window: StatsWindow, release: Release | None, before: Totals, latest_ms: int
) -> Rejection | None:
    """Judge one window.

    Args:
        window: as decoded.
        release: the one it names, none where the server does not know it.
        before: the device's sums for that release and arm so far.
        latest_ms: a window may not close later than this.
    """
    if release is None or release.ref != window.release:
        return Rejection(reason="unknown release", detail=window.release.name)
    if window.closed_ms < window.opened_ms or window.closed_ms > latest_ms or window.opened_ms < 0:
        return Rejection(
            reason="impossible time", detail=f"{window.opened_ms} to {window.closed_ms} ms"
        )
    return (
        _declared(window, release)
        or _causes(window)
        or _arrays(window, release)
        or _labels(window, before)
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


def sample_rejection(sample: Sample, release: Release | None, latest_ms: int) -> Rejection | None:
    """Judge one sampled prediction."""
    if release is None or release.ref != sample.release:
        return Rejection(reason="unknown release", detail=sample.release.name)
    if sample.at_ms > latest_ms:
        return Rejection(reason="impossible time", detail=f"{sample.at_ms} ms")
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
    return _evidence(sample, of_requests=of_requests)


def _evidence(sample: Sample, *, of_requests: bool) -> Rejection | None:
    """What a request was computed from has to be there, and may not unpack to a flood."""
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
    labels = 4 * layout.confidence_size
    for name, data, lengths in (
        ("counts", window.counts, (0, 4 * layout.total)),
        ("latency", window.latency, (0, 4 * latency.BINS)),
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
    if window.counts:
        merged = counts(window)
        per_row = {channel.name: 1 for channel in release.reference.channels}
        per_row |= dict.fromkeys(release.definition.input_names, release.definition.raw_shape[0])
        for name, most in per_row.items():
            found = int(merged[layout.slice_of(name)].sum())
            if found > most * window.rows:
                return Rejection(
                    reason="impossible counts",
                    detail=f"channel {name} counts {found} values of {window.rows} rows",
                )
    return None


def _labels(window: StatsWindow, before: Totals) -> Rejection | None:
    """Labels come late, but never for more rows than the device reported."""
    rows = before.rows + window.rows
    known = before.right + before.wrong + sum(labelled(window))
    if known > rows * (1 + SPARE_SHARE) + SPARE_LABELS:
        return Rejection(reason="impossible counts", detail=f"{known} labels for {rows} rows")
    if window.paired is None:
        return None
    if window.arm != "shadow":
        return Rejection(reason="impossible counts", detail=f"pairs in arm {window.arm}")
    pairs = before.paired + window.paired.agree + window.paired.disagree
    known = before.paired_labelled + paired_labels(window)
    if pairs > rows or known > pairs * (1 + SPARE_SHARE) + SPARE_LABELS:
        return Rejection(
            reason="impossible counts", detail=f"{known} labelled pairs of {pairs} in {rows} rows"
        )
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
    return int(np.frombuffer(packed, dtype="<u4").sum(dtype=np.int64)) if packed else 0
