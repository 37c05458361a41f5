"""Folds traffic into statistics windows and samples. Judges nothing.

The inference thread reports answers, the event loop reports labels and closes windows; one lock
keeps the open cells whole.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent import closing
from edge_agent.closing import Frame
from edge_agent.conduct import Conduct, Conducts
from edge_agent.inference.session import Float32
from edge_agent.meters import Meters, Readings, Spent, shared
from edge_agent.sampling import Sampled, Sampling
from edge_agent.serving.predictions import Given
from edge_agent.serving.release import LoadedRelease
from edge_core import packed
from edge_core.features.request_definition import RequestDefinition
from edge_core.messages import windows
from edge_core.messages.codec import MAX_MESSAGE_BYTES
from edge_core.messages.telemetry import (
    MAX_CONSUMERS,
    OTHER_CONSUMERS,
    Arm,
    Cause,
    Sample,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats.histogram import Histogram, Int64, Layout
from edge_core.stats.latency import LatencyHistogram

MAX_WAITING_SAMPLES = 64
MAX_CELLS = 64
WHOLE_CELLS = 8
"""Of these, kept for rows of any slice, where there are too many slices to tell apart."""
MAX_KNOWN = 16
"""Releases whose layout is kept: labels come for answers of earlier ones."""
FOLD_ROWS = 256
FOLD_BYTES = 4 * 1024 * 1024
MAX_SAMPLE_BYTES = MAX_MESSAGE_BYTES - 4096
"""Arrays of a sample; names, ids and framing need the rest of a message."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """Under which role a release answers rows."""

    release: ReleaseRef
    target: str
    arm: Arm
    rollout: str | None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one slice that one release answered together."""

    ids: list[str]
    raw: Float32
    features: Float32
    probabilities: Float32
    embedding: Float32 | None = None
    """float32 [rows, coordinates]; none where the release has none, or the baseline answered."""
    latency_us: npt.NDArray[np.float64]
    slices: dict[str, str]
    sampled: Sequence[Sampled] = ()
    """Rows to be sampled."""
    cause: Cause | None = None
    """Why the baseline answered."""
    consumers: Mapping[str, int] = {}
    """Who asked -> rows."""
    cached: int = 0
    """Rows that were answered from memory."""


def joined(parts: list[Float32]) -> Float32:
    """Rows of all parts, float32; a single part is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Cell:
    """Counts of one role and slice since the window was opened.

    Rows wait until there are enough of them: a histogram's update costs about as much for one
    row as for twenty.
    """

    def __init__(self, confidence_size: int) -> None:
        self.rows = self.errors = self.late = self.cached = self.dropped = 0
        self.causes: dict[str, int] = {}
        self.histogram: Histogram | None = None
        self.latency = LatencyHistogram()
        self.waiting: list[Batch] = []
        self.waiting_rows = self.waiting_bytes = 0
        self.right: Int64 = np.zeros(confidence_size, np.int64)
        self.wrong: Int64 = np.zeros(confidence_size, np.int64)
        self.paired: dict[str, int] = {}
        self.consumers: dict[str, int] = {}

    def count(self, layout: Layout, batch: Batch) -> None:
        if self.histogram is None:
            self.histogram = Histogram(layout)
        self.rows += len(batch.ids)
        self.cached += batch.cached
        if batch.cause is not None:
            self.causes[batch.cause] = self.causes.get(batch.cause, 0) + len(batch.ids)
        for name, rows in batch.consumers.items():
            self._count_consumer(name, rows)
        self.waiting.append(batch)
        self.waiting_rows += len(batch.ids)
        self.waiting_bytes += batch.raw.nbytes
        self.waiting_bytes += 0 if batch.embedding is None else batch.embedding.nbytes
        if self.waiting_rows >= FOLD_ROWS or self.waiting_bytes >= FOLD_BYTES:
            self.fold()

    def fold(self) -> None:
        """Count the rows that wait."""
        if self.histogram is None or not self.waiting:
            return
        # Let go of first: what could not be counted must not be tried again and again.
        waiting, self.waiting = self.waiting, []
        self.waiting_rows = self.waiting_bytes = 0
        # A cell is of one role, so all of its rows have an embedding or none has.
        seen = [batch.embedding for batch in waiting if batch.embedding is not None]
        self.histogram.update(
            [batch.raw for batch in waiting],
            joined([batch.features for batch in waiting]),
            joined([batch.probabilities for batch in waiting]),
            joined(seen) if seen else None,
        )
        self.latency.update(np.concatenate([batch.latency_us for batch in waiting]))

    def _count_consumer(self, name: str, rows: int) -> None:
        if name not in self.consumers and len(self.consumers) >= MAX_CONSUMERS:
            name = OTHER_CONSUMERS
        self.consumers[name] = self.consumers.get(name, 0) + rows

    def count_pair(self, field: str, rows: int = 1) -> None:
        self.paired[field] = self.paired.get(field, 0) + rows


_Cells = dict[tuple[Role, ReleaseRef | None, tuple[tuple[str, str], ...]], _Cell]


def _conducts(cells: _Cells) -> Iterator[tuple[str, Conduct]]:
    """What the cells tell of models that answered, by digest; every cell is folded."""
    for (role, _, _), cell in cells.items():
        cell.fold()
        if cell.histogram is not None and role.arm not in ("shadow", "fallback"):
            yield role.release.digest, Conduct.of(cell.rows, cell.latency.counts, cell.histogram)


class Monitor:
    """Open statistics of this device."""

    def __init__(
        self,
        *,
        device: str,
        sample_every: int,
        now_ms: int,
        meters: Meters | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Open the first window.

        Args:
            device: this device's name.
            sample_every: one row of so many is sampled.
            now_ms: UTC.
            meters: what answers cost; this process's own if none.
            rng: draws the noise of releases that ask for it; seeded by the system if none.
        """
        self._device = device
        self.sampling = Sampling(sample_every)
        """Belongs to the inference thread."""
        self._opened_ms = now_ms
        self._lock = threading.Lock()
        self._cells: _Cells = {}
        self._schemas: dict[str, WindowSchema] = {}
        self._readings = Readings(meters or Meters())
        self._rng = rng or np.random.default_rng(int.from_bytes(os.urandom(32)))
        self._samples: deque[Sample] = deque(maxlen=MAX_WAITING_SAMPLES)
        self._conducts = Conducts()
        self.dropped_cells = 0
        self.unsendable_samples = 0
        """Samples that no message can hold."""

    def know(self, schema: WindowSchema) -> None:
        """Remember how windows of a release are packed; without it none can be sent."""
        with self._lock:
            self._know(schema)

    def _know(self, schema: WindowSchema) -> None:
        known = self._schemas
        if schema.release.digest not in known:
            known[schema.release.digest] = schema
            while len(known) > MAX_KNOWN:
                del known[next(iter(known))]

    def answered(self, role: Role, release: LoadedRelease, batch: Batch, at_ms: int) -> None:
        """Count a batch of answers of the release in the given role."""
        # A sampled row would tell what the noise is there to hide.
        sampled = batch.sampled if release.window_schema.epsilon is None else ()
        samples = [self._sample(role, release, batch, one, at_ms) for one in sampled]
        with self._lock:
            self._know(release.window_schema)
            cell = self._cell(role, None, batch.slices, release.layout.confidence_size)
            cell.count(release.layout, batch)
            for sample in samples:
                if sample is None:
                    self.unsendable_samples += 1
                else:
                    self._samples.append(sample)

    def failed(
        self,
        role: Role,
        slices: dict[str, str],
        rows: int,
        bins: int,
        paired_with: ReleaseRef | None = None,
    ) -> None:
        """Count rows that the model could not answer; a shadow names the release it shadows."""
        with self._lock:
            self._cell(role, paired_with, slices, bins).errors += rows

    def dropped(
        self, role: Role, slices: dict[str, str], rows: int, bins: int, active: ReleaseRef
    ) -> None:
        """Count rows that a shadow did not answer."""
        with self._lock:
            self._cell(role, active, slices, bins).dropped += rows

    def late(self, role: Role, slices: dict[str, str], events: int, bins: int) -> None:
        """Count samples and events that came too late, twice or too early to be taken."""
        with self._lock:
            self._cell(role, None, slices, bins).late += events

    def shadowed(
        self,
        role: Role,
        shadow: LoadedRelease,
        active: ReleaseRef,
        batch: Batch,
        agreements: int,
    ) -> None:
        """Count a batch that the shadow scored, too."""
        with self._lock:
            self._know(shadow.window_schema)
            cell = self._cell(role, active, batch.slices, shadow.layout.confidence_size)
            cell.count(shadow.layout, batch)
            cell.count_pair("agree", agreements)
            cell.count_pair("disagree", len(batch.ids) - agreements)

    def labelled(self, given: Given, target: str, truth: str) -> None:
        """Count a label under the release, role and slice that gave the answer."""
        right = given.predicted == truth
        role = Role(release=given.release, target=target, arm=given.arm, rollout=given.rollout)
        with self._lock:
            cell = self._cell(role, None, given.slices, given.bins)
            (cell.right if right else cell.wrong)[given.confidence_bin] += 1
            if given.shadow is None:
                return
            shadow_right = given.shadow_predicted == truth
            role = Role(release=given.shadow, target=target, arm="shadow", rollout=given.rollout)
            cell = self._cell(role, given.release, given.slices, given.shadow_bins)
            (cell.right if shadow_right else cell.wrong)[given.shadow_confidence_bin] += 1
            cell.count_pair(_PAIRS[right, shadow_right])

    def close(self, now_ms: int) -> list[StatsWindow]:
        """End the window and open the next; the outbox stamps epoch and sequence.

        What was spent while nothing was counted goes into the next window that counts something.
        """
        with self._lock:
            cells, self._cells = self._cells, {}
            opened, self._opened_ms = self._opened_ms, now_ms
            schemas = dict(self._schemas)
            for digest, conduct in _conducts(cells):
                self._conducts.add(digest, conduct)
        found = [(key, cell) for key, cell in cells.items() if key[0].release.digest in schemas]
        self.dropped_cells += len(cells) - len(found)
        if not found:
            return []
        spent = self._shares([cell for _, cell in found])
        closed = []
        for ((role, paired_with, slices), cell), own in zip(found, spent, strict=True):
            cell.fold()
            frame = Frame(
                device=self._device,
                opened_ms=opened,
                closed_ms=now_ms,
                target=role.target,
                arm=role.arm,
                rollout=role.rollout,
                slices=dict(slices),
                paired_with=paired_with,
            )
            closed.append(closing.close(cell, frame, schemas[role.release.digest], own, self._rng))
        return closed

    def packed(self, window: StatsWindow) -> bytes:
        """A closed window as it travels, but for its place in the outbox."""
        with self._lock:
            schema = self._schemas[window.release.digest]
        return windows.body(window, schema)

    def _shares(self, cells: list[_Cell]) -> list[Spent]:
        """Time by rows; bytes and the span are the device's and stand in the first window."""
        spent = self._readings.take()
        times = shared(spent.cpu_us, [cell.rows + cell.errors for cell in cells])
        first = Spent(cpu_us=times[0], sent_bytes=spent.sent_bytes, span_ms=spent.span_ms)
        return [first, *(Spent(cpu_us=cpu, sent_bytes=0, span_ms=0) for cpu in times[1:])]

    def conduct(self, release: ReleaseRef, *, lately: bool = False) -> Conduct:
        """How a release's model answered applications since the process began, or lately only."""
        with self._lock:
            kept = self._conducts
            found = kept.lately(release.digest) if lately else kept.total(release.digest)
            for digest, conduct in _conducts(self._cells):
                if digest == release.digest:
                    found = found.plus(conduct)
        return found

    def take_samples(self) -> list[Sample]:
        """Return the waiting samples; the oldest were dropped when there were too many."""
        with self._lock:
            samples = list(self._samples)
            self._samples.clear()
        return samples

    def _cell(
        self, role: Role, paired_with: ReleaseRef | None, slices: dict[str, str], bins: int
    ) -> _Cell:
        if role.arm == "shadow" and (schema := self._schemas.get(role.release.digest)):
            slices = schema.declared(slices)  # they were asked of the active release
        key = (role, paired_with, tuple(sorted(slices.items())))
        cell = self._cells.get(key)
        if cell is None:
            if slices and len(self._cells) >= MAX_CELLS - WHOLE_CELLS:
                return self._cell(role, paired_with, {}, bins)
            cell = _Cell(bins)
            if len(self._cells) < MAX_CELLS:
                self._cells[key] = cell
            else:
                self.dropped_cells += 1
        return cell

    def _sample(
        self, role: Role, release: LoadedRelease, batch: Batch, sampled: Sampled, at_ms: int
    ) -> Sample | None:
        """One row with what it was computed from; none where no message holds it."""
        row, evidence = sampled
        of_requests = isinstance(release.definition, RequestDefinition)
        if of_requests and evidence is None:
            return None
        redaction = release.redaction
        if not redaction.keeps_requests:
            evidence = None
        window = redaction.window(batch.raw[row])
        parts = {
            "window": b"" if of_requests else window.astype("<f4").tobytes(),
            "request": evidence.request if evidence else b"",
            "memory": packed.pack(evidence.memory) if evidence else b"",
            "features": redaction.features(batch.features[row]).astype("<f4").tobytes(),
            "scores": batch.probabilities[row].astype("<f4").tobytes(),
        }
        if sum(map(len, parts.values())) > MAX_SAMPLE_BYTES:
            return None
        return Sample(
            device=self._device,
            prediction_id=batch.ids[row],
            at_ms=at_ms,
            release=role.release,
            target=role.target,
            arm=role.arm,
            slices=batch.slices,
            definition=release.definition_digest,
            **parts,
        )


_PAIRS = {
    (True, True): "both_right",
    (True, False): "only_active_right",
    (False, True): "only_shadow_right",
    (False, False): "both_wrong",
}
