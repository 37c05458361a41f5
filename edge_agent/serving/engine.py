"""Takes requests, drains them as one batch whenever the runtime is free, answers all of them.

The event loop checks and queues; one inference thread computes. There is no batching timer: a
batch is whatever came while the last one ran. Shadow scoring happens after the answers, only
while nobody waits, and is dropped first.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.monitor import Batch, Monitor, Role
from edge_agent.serving.predictions import Given, Prediction, Recent
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.errors import InvalidInput, Overloaded, SerinusError, Unavailable
from edge_core.features.evaluation import Int32, Int64
from edge_core.features.windowing import FeatureStream
from edge_core.messages.telemetry import Arm

MAX_BATCH_ROWS = 64
MAX_STREAMS = 256
MAX_ROWS_PER_REQUEST = 1024
MAX_RECENT = 20_000
MAX_SHADOW_BATCHES = 32

Number = TypeVar("Number", np.float32, np.int32)
Done = Callable[[list[Prediction] | SerinusError], None]


class Totals(msgspec.Struct, kw_only=True):
    """What the active release did since it was activated."""

    rows: int = 0
    errors: int = 0
    fallbacks: int = 0


class _Active:
    """The release that answers, its role, and its open sensor streams."""

    def __init__(self, release: LoadedRelease, role: Role) -> None:
        self.release = release
        self.role = role
        self.streams: dict[str, FeatureStream] = {}

    def stream(self, name: str) -> FeatureStream:
        if name not in self.streams:
            if len(self.streams) >= MAX_STREAMS:
                raise InvalidInput(f"more than {MAX_STREAMS} sensor streams; reuse their names")
            self.streams[name] = FeatureStream(self.release.definition, self.release.evaluator)
        return self.streams[name]


class _Job:
    """Rows of one request on their way to the runtime."""

    __slots__ = ("active", "done", "features", "quantised", "raw", "slices", "started", "times")

    def __init__(
        self,
        *,
        active: _Active,
        raw: Float32,
        quantised: Int32,
        features: Float32 | None,
        times: tuple[Int64, Int64] | None,
        slices: dict[str, str],
        done: Done,
    ) -> None:
        self.active = active
        self.raw = raw
        self.quantised = quantised
        self.features = features
        self.times = times
        self.slices = slices
        self.done = done
        self.started = time.perf_counter()


class Engine:
    """Serves one model: an active release, perhaps a shadow, and the baseline behind both."""

    def __init__(
        self,
        monitor: Monitor,
        *,
        slices: dict[str, str],
        max_queue_rows: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._monitor = monitor
        self._slices = slices
        self._max_queue_rows = max_queue_rows
        self._now_ms = now_ms
        self._active: _Active | None = None
        self._shadow: LoadedRelease | None = None
        self._queue: deque[_Job] = deque()
        self._queued_rows = 0
        self._shadow_work: deque[tuple[_Active, Batch]] = deque(maxlen=MAX_SHADOW_BATCHES)
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._recent = Recent(MAX_RECENT)
        self._ids = map("{}-{:x}".format, itertools.repeat(secrets.token_hex(4)), itertools.count())
        self.totals = Totals()
        self._task = asyncio.get_running_loop().create_task(self._serve())

    @property
    def active(self) -> LoadedRelease | None:
        """The release that answers now."""
        return self._active.release if self._active else None

    @property
    def shadow(self) -> LoadedRelease | None:
        """The release that scores the same rows unseen."""
        return self._shadow

    def set_active(self, release: LoadedRelease | None, arm: Arm, rollout: str | None) -> None:
        """Let this release answer from the next request on; open windows go on if they can."""
        before = self._active
        if release is None:
            self._active = None
            return
        role = Role(release=release.ref, target=release.target, arm=arm, rollout=rollout)
        self._active = _Active(release, role)
        if before is None or before.release.ref != release.ref:
            self.totals = Totals()
        if before is not None and before.release.definition == release.definition:
            self._active.streams = before.streams

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """Score the same rows with this release, too, unseen by applications.

        Raises:
            InvalidInput: it cuts other windows than the active release, so no row is the same.
        """
        if release and self._active and not self._active.release.same_windows(release):
            raise InvalidInput(
                f"{release.ref.name} uses other windows than {self._active.release.ref.name}; "
                "it cannot run as its shadow"
            )
        self._shadow = release

    async def predict(
        self, samples: npt.ArrayLike, slices: dict[str, str] | None = None
    ) -> list[Prediction]:
        """Answer whole raw windows, float32 [batch, samples, inputs]; see :meth:`submit`."""
        return await self._answer_of(lambda done: self.submit(samples, slices or {}, done))

    async def push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str] | None = None,
    ) -> list[Prediction]:
        """Take sensor samples and answer the windows they complete; see :meth:`submit_push`."""
        return await self._answer_of(
            lambda done: self.submit_push(stream, times_us, samples, slices or {}, done)
        )

    async def _answer_of(self, submit: Callable[[Done], None]) -> list[Prediction]:
        future: asyncio.Future[list[Prediction]] = asyncio.get_running_loop().create_future()

        def done(answer: list[Prediction] | SerinusError) -> None:
            if future.done():
                return
            if isinstance(answer, SerinusError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        submit(done)
        return await future

    def submit(self, samples: npt.ArrayLike, slices: dict[str, str], done: Done) -> None:
        """Queue whole windows; ``done`` gets the answer on the event loop.

        Raises:
            InvalidInput: shape, channels or values do not fit, or a slice is not declared.
            Overloaded: too many rows wait already.
            Unavailable: no release is active.
        """
        active = self._require_active()
        quantised = active.release.evaluator.quantise(samples)
        window = active.release.definition.window
        if quantised.ndim != 3 or quantised.shape[1] != window.samples:
            raise InvalidInput(
                f"samples have shape {list(quantised.shape)}; needed is "
                f"[batch, {window.samples}, {len(active.release.definition.inputs)}]"
            )
        if not 1 <= len(quantised) <= MAX_ROWS_PER_REQUEST:
            raise InvalidInput(
                f"{len(quantised)} windows in a request; 1 to {MAX_ROWS_PER_REQUEST}"
            )
        self._enqueue(
            _Job(
                active=active,
                raw=np.asarray(samples, dtype=np.float32),
                quantised=quantised,
                features=None,
                times=None,
                slices=self._declared(active, slices),
                done=done,
            )
        )

    def submit_push(
        self,
        stream: str,
        times_us: npt.ArrayLike,
        samples: npt.ArrayLike,
        slices: dict[str, str],
        done: Done,
    ) -> None:
        """Feed a sensor stream; ``done`` gets the answers of the windows that are complete now.

        Raises: as :meth:`submit`.
        """
        active = self._require_active()
        declared = self._declared(active, slices)
        open_stream = active.stream(stream)
        late = open_stream.late
        windows = open_stream.push(times_us, samples)
        if open_stream.late > late:
            bins = active.release.layout.confidence_size
            self._monitor.late(active.role, declared, open_stream.late - late, bins)
        if not len(windows.raw):
            done([])
            return
        self._enqueue(
            _Job(
                active=active,
                raw=windows.raw,
                quantised=windows.quantised,
                features=windows.features,
                times=(windows.first_us, windows.last_us),
                slices=declared,
                done=done,
            )
        )

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Join a label with its prediction; false when it is unknown, too old or labelled.

        Raises:
            InvalidInput: the active release has no such class.
        """
        active = self._require_active()
        if label not in active.release.classes:
            known = ", ".join(active.release.classes)
            raise InvalidInput(f"label {label[:64]!r} is not one of {known}")
        given = self._recent.take(prediction_id)
        if given is None:
            return False
        self._monitor.labelled(given, active.release.target, label)
        return True

    async def close(self) -> None:
        """Stop serving; requests that still wait are told so."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._thread.shutdown()
        for job in self._queue:
            job.done(Unavailable("the agent is stopping; try again"))
        self._queue.clear()

    def _require_active(self) -> _Active:
        if self._active is None:
            raise Unavailable("no release is active on this device yet; wait for its rollout")
        return self._active

    def _declared(self, active: _Active, slices: dict[str, str]) -> dict[str, str]:
        declared = active.release.manifest.slices
        for name, value in slices.items():
            if value not in declared.get(name, []):
                raise InvalidInput(
                    f"slice {name[:64]}={value[:64]} is not declared by the release; declared: "
                    + "; ".join(f"{key}={'|'.join(values)}" for key, values in declared.items())
                )
        merged = {**self._slices, **slices}
        return {name: value for name, value in merged.items() if value in declared.get(name, [])}

    def _enqueue(self, job: _Job) -> None:
        if self._queued_rows + len(job.raw) > self._max_queue_rows:
            raise Overloaded(
                f"{self._queued_rows} rows wait for the model already; slow down and try again"
            )
        self._queue.append(job)
        self._queued_rows += len(job.raw)
        self._wake.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            if self._queue:
                jobs = self._drain()
                answers = await loop.run_in_executor(self._thread, self._answer_all, jobs)
                for job, answer in zip(jobs, answers, strict=True):
                    job.done(answer)
            elif self._shadow_work:
                active, batch = self._shadow_work.popleft()
                shadow = self._shadow
                if shadow is not None and active is self._active:
                    await loop.run_in_executor(self._thread, self._score, shadow, active, batch)
            else:
                self._wake.clear()

    def _drain(self) -> list[_Job]:
        """Take jobs of one release and one slice, up to a full batch."""
        jobs = [self._queue.popleft()]
        rows = len(jobs[0].raw)
        while (
            self._queue
            and rows + len(self._queue[0].raw) <= MAX_BATCH_ROWS
            and self._queue[0].active is jobs[0].active
            and self._queue[0].slices == jobs[0].slices
        ):
            jobs.append(self._queue.popleft())
            rows += len(jobs[-1].raw)
        self._queued_rows -= rows
        return jobs

    def _answer_all(self, jobs: list[_Job]) -> list[list[Prediction] | SerinusError]:
        """Inference thread: one pass of features, model, statistics and answers."""
        active, release = jobs[0].active, jobs[0].active.release
        raw = _joined([job.raw for job in jobs])
        features = _joined(
            [
                release.evaluator.evaluate(job.quantised) if job.features is None else job.features
                for job in jobs
            ]
            if any(job.features is not None for job in jobs)
            else [release.evaluator.evaluate(_joined([job.quantised for job in jobs]))]
        )
        role, logits = self._logits(active, features, jobs[0].slices)
        probabilities = outputs.probabilities(logits)
        ended = time.perf_counter()
        batch = Batch(
            ids=list(itertools.islice(self._ids, len(raw))),
            raw=raw,
            features=features,
            probabilities=probabilities,
            latency_us=np.repeat(
                [(ended - job.started) * 1e6 for job in jobs], [len(job.raw) for job in jobs]
            ),
            slices=jobs[0].slices,
        )
        self._monitor.answered(role, release, batch, self._now_ms())
        predictions = self._predictions(role, release, batch)
        if self._shadow is not None and role.arm != "fallback":
            self._shadow_work.append((active, batch))
        return _split(predictions, jobs)

    def _logits(
        self, active: _Active, features: Float32, slices: dict[str, str]
    ) -> tuple[Role, Float32]:
        """Logits of the model, or of the baseline when the model fails."""
        release, rows = active.release, len(features)
        try:
            logits = release.logits(features)
            if np.isfinite(logits).all():
                self.totals.rows += rows
                return active.role, logits
        except Unavailable:
            pass  # counted below, like an answer that is not finite
        self.totals.errors += rows
        self.totals.fallbacks += rows
        self._monitor.failed(active.role, slices, rows, release.layout.confidence_size)
        role = msgspec.structs.replace(active.role, arm="fallback")
        return role, release.fallback_logits(features)

    def _predictions(self, role: Role, release: LoadedRelease, batch: Batch) -> list[Prediction]:
        top = batch.probabilities.argmax(axis=1)
        confidence = batch.probabilities[np.arange(len(top)), top]
        bins = release.layout.confidence_bins(confidence)
        served_by = "fallback" if role.arm == "fallback" else "model"
        predictions = []
        for row, prediction_id in enumerate(batch.ids):
            label = release.classes[top[row]]
            self._recent.remember(
                prediction_id,
                Given(
                    release=role.release,
                    arm=role.arm,
                    rollout=role.rollout,
                    slices=batch.slices,
                    predicted=label,
                    confidence_bin=int(bins[row]),
                    bins=release.layout.confidence_size,
                ),
            )
            predictions.append(
                Prediction(
                    id=prediction_id,
                    model=role.release.model,
                    version=role.release.version,
                    digest=role.release.digest,
                    target=role.target,
                    served_by=served_by,
                    label=label,
                    confidence=float(confidence[row]),
                    scores=batch.probabilities[row].tolist(),
                )
            )
        return predictions

    def _score(self, shadow: LoadedRelease, active: _Active, batch: Batch) -> None:
        """Inference thread: let the shadow answer the same raw windows."""
        role = Role(
            release=shadow.ref, target=shadow.target, arm="shadow", rollout=active.role.rollout
        )
        started = time.perf_counter()
        try:
            features = shadow.evaluator.evaluate(shadow.evaluator.quantise(batch.raw))
            probabilities = outputs.probabilities(shadow.logits(features))
        except SerinusError:
            bins = shadow.layout.confidence_size
            self._monitor.failed(role, batch.slices, len(batch.ids), bins)
            return
        elapsed = (time.perf_counter() - started) * 1e6
        top = probabilities.argmax(axis=1)
        own = batch.probabilities.argmax(axis=1)
        labels = [shadow.classes[index] for index in top]
        agreements = sum(
            active.release.classes[mine] == theirs for mine, theirs in zip(own, labels, strict=True)
        )
        self._monitor.shadowed(
            role,
            shadow,
            active.release.ref,
            msgspec.structs.replace(
                batch,
                features=features,
                probabilities=probabilities,
                latency_us=np.full(len(top), elapsed),
            ),
            agreements,
        )
        bins_of_rows = shadow.layout.confidence_bins(probabilities.max(axis=1))
        for row, prediction_id in enumerate(batch.ids):
            self._recent.add_shadow(
                prediction_id,
                release=shadow.ref,
                predicted=labels[row],
                confidence_bin=int(bins_of_rows[row]),
                bins=shadow.layout.confidence_size,
            )


def _joined(parts: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _split(
    predictions: list[Prediction], jobs: list[_Job]
) -> list[list[Prediction] | SerinusError]:
    answers: list[list[Prediction] | SerinusError] = []
    start = 0
    for job in jobs:
        own = predictions[start : start + len(job.raw)]
        start += len(job.raw)
        if job.times is not None:
            own = [
                msgspec.structs.replace(answer, first_us=int(first), last_us=int(last))
                for answer, first, last in zip(own, *job.times, strict=True)
            ]
        answers.append(own)
    return answers
