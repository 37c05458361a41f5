"""Makes a window from the counts of one role and slice."""

from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from edge_agent.meters import Spent
from edge_core.messages import windows
from edge_core.messages.telemetry import (
    TAG_BYTES,
    Arm,
    Cost,
    FallbackCounts,
    PairedCounts,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import noise
from edge_core.stats.histogram import Histogram, Int64, pack_counts
from edge_core.stats.latency import LatencyHistogram


class Counted(Protocol):
    """What is counted for one role and slice."""

    rows: int
    errors: int
    late: int
    cached: int
    dropped: int
    causes: dict[str, int]
    histogram: Histogram | None
    latency: LatencyHistogram
    right: Int64
    wrong: Int64
    paired: dict[str, int]
    consumers: dict[str, int]


class Frame(NamedTuple):
    """What a window says of itself beside its counts."""

    device: str
    opened_ms: int
    closed_ms: int
    target: str
    arm: Arm
    rollout: str | None
    slices: dict[str, str]
    paired_with: ReleaseRef | None


def close(
    cell: Counted, frame: Frame, schema: WindowSchema, spent: Spent, rng: np.random.Generator
) -> StatsWindow:
    """One window, with noise where the release asks for it."""
    beside = frame.paired_with
    window = StatsWindow(
        device=frame.device,
        epoch=windows.UNSTAMPED,
        sequence=0,
        opened_ms=frame.opened_ms,
        closed_ms=frame.closed_ms,
        release=schema.release,
        target=frame.target,
        arm=frame.arm,
        rollout=frame.rollout,
        slices=frame.slices,
        rows=cell.rows,
        errors=cell.errors,
        late=cell.late,
        counts=b"" if cell.histogram is None else cell.histogram.to_bytes(),
        latency=cell.latency.to_bytes(),
        right=pack_counts(cell.right) if cell.right.any() or cell.wrong.any() else b"",
        wrong=pack_counts(cell.wrong) if cell.right.any() or cell.wrong.any() else b"",
        paired=PairedCounts(**cell.paired) if beside else None,
        paired_with=beside.digest[: 2 * TAG_BYTES] if beside else None,
        fallbacks=FallbackCounts(**cell.causes) if cell.causes else None,
        dropped=cell.dropped,
        cost=Cost(
            cpu_us=spent.cpu_us,
            cached=cell.cached,
            sent_bytes=spent.sent_bytes,
            span_ms=spent.span_ms,
            consumers=cell.consumers,
        ),
    )
    return window if schema.epsilon is None else _with_noise(window, schema, rng)


def _with_noise(window: StatsWindow, schema: WindowSchema, rng: np.random.Generator) -> StatsWindow:
    """Hide each row's values, answer and label; how many there were stays open."""
    changed: dict[str, bytes | PairedCounts] = {}
    if window.counts:
        counts = np.frombuffer(window.counts, "<i8")
        found = noise.noisy(counts, schema.sizes, schema.channel_ratios, rng)
        changed["counts"] = pack_counts(found)
    if window.right:
        for name in ("right", "wrong"):
            labels = np.frombuffer(getattr(window, name), "<i8")
            found = noise.noisy(labels, [len(labels)], [schema.outcome_ratio], rng)
            changed[name] = pack_counts(found)
    if window.paired is not None:
        pairs = np.array(msgspec.structs.astuple(window.paired))
        found = noise.noisy(pairs, [len(pairs)], [schema.outcome_ratio], rng)
        numbers = dict(zip(PairedCounts.__struct_fields__, found.tolist(), strict=True))
        changed["paired"] = PairedCounts(**numbers)
    return msgspec.structs.replace(window, **changed)
