"""What closed windows say of cost, consumers and noise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.meters import Meters, Readings, shared
from edge_agent.monitor import Batch, Monitor, Role
from edge_agent.sampling import Sampled
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.bundle.manifest import Privacy
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import MAX_CONSUMERS, OTHER_CONSUMERS, PairedCounts
from edge_core.release import ReleaseRef
from edge_core.stats import noise
from edge_core.stats.histogram import Histogram
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows

EPSILON = 2.0


class Meter:
    """Readings that a test sets."""

    def __init__(self) -> None:
        self.cpu = self.at = 0.0
        self.sent = 0
        self.meters = Meters(
            cpu_seconds=lambda: self.cpu, monotonic=lambda: self.at, sent_bytes=lambda: self.sent
        )


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> LoadedRelease:
    return LoadedRelease.open(tiny_bundle(tmp_path_factory.mktemp("exact")), TARGET)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> LoadedRelease:
    folder = tmp_path_factory.mktemp("noisy")
    return LoadedRelease.open(tiny_bundle(folder, privacy=Privacy(epsilon=EPSILON)), TARGET)


def role_of(release: LoadedRelease, arm: str = "incumbent") -> Role:
    return Role(release=release.ref, target=TARGET, arm=arm, rollout=None)  # type: ignore[arg-type]


def batch_of(release: LoadedRelease, rows: int, **more: object) -> Batch:
    raw, _ = tiny_rows(rows)
    features = release.evaluator.evaluate(release.evaluator.quantise(raw))
    return Batch(
        ids=[str(row) for row in range(rows)],
        raw=raw,
        features=features,
        probabilities=outputs.probabilities(release.logits(raw, features)),
        latency_us=np.full(rows, 100.0),
        slices={"side": "left"},
        **more,  # type: ignore[arg-type]
    )


def test_processor_time_is_shared_by_rows_and_bytes_are_told_once(exact: LoadedRelease) -> None:
    meter = Meter()
    monitor = Monitor(device="d1", sample_every=1, now_ms=0, meters=meter.meters)
    monitor.answered(role_of(exact), exact, batch_of(exact, 30, cached=4), at_ms=1)
    monitor.shadowed(role_of(exact, "shadow"), exact, exact.ref, batch_of(exact, 10), 10)
    meter.cpu, meter.at, meter.sent = 0.002, 60.0, 777
    first, second = monitor.close(60_000)
    assert (first.cost.cpu_us, second.cost.cpu_us) == (1500, 500)
    assert (first.cost.sent_bytes, first.cost.span_ms, first.cost.cached) == (777, 60_000, 4)
    assert (second.cost.sent_bytes, second.cost.span_ms, second.cost.cached) == (0, 0, 0)


@pytest.mark.parametrize("declared", [(), (("side", ("right",)), ("wrist", ("l", "r")))])
def test_a_shadow_that_declares_other_slices_is_counted_without_them(
    exact: LoadedRelease, declared: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    """What was asked names slices of the active release."""
    ref = ReleaseRef(model="tiny-motion", version="2.0.0", digest="2" * 64)
    schema = msgspec.structs.replace(exact.window_schema, release=ref, slices=declared)
    shadow: Any = SimpleNamespace(ref=ref, layout=exact.layout, window_schema=schema)
    role = msgspec.structs.replace(role_of(exact, "shadow"), release=ref)
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    monitor.shadowed(role, shadow, exact.ref, batch_of(exact, 10), 9)
    monitor.failed(role, {"side": "left"}, 3, exact.layout.confidence_size, exact.ref)
    monitor.dropped(role, {"side": "left"}, 4, exact.layout.confidence_size, exact.ref)
    (window,) = monitor.close(60_000)
    assert (window.rows, window.errors, window.dropped, window.slices) == (10, 3, 4, {})
    head = windows.head(windows.stamped(monitor.packed(window), "e", 1))
    assert windows.unpack(head, schema, "d1").slices == {}


def test_idle_time_is_told_with_the_next_window(exact: LoadedRelease) -> None:
    meter = Meter()
    monitor = Monitor(device="d1", sample_every=1, now_ms=0, meters=meter.meters)
    meter.at, meter.sent = 100.0, 50
    assert monitor.close(100_000) == []
    monitor.answered(role_of(exact), exact, batch_of(exact, 1), at_ms=1)
    meter.at, meter.sent = 160.0, 80
    (window,) = monitor.close(160_000)
    assert (window.cost.span_ms, window.cost.sent_bytes) == (160_000, 80)
    monitor.answered(role_of(exact), exact, batch_of(exact, 1), at_ms=1)
    (window,) = monitor.close(170_000)
    assert (window.cost.span_ms, window.cost.sent_bytes) == (0, 0)


def test_a_meter_that_falls_back_costs_nothing() -> None:
    meter = Meter()
    meter.cpu = meter.at = 5.0
    readings = Readings(meter.meters)
    meter.cpu = meter.at = 1.0
    spent = readings.take()
    assert (spent.cpu_us, spent.span_ms) == (0, 0)


@given(st.integers(0, 2**50), st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_shares_add_up_and_follow_the_weights(amount: int, weights: list[int]) -> None:
    parts = shared(amount, weights)
    assert sum(parts) == amount
    total = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        if total:
            assert abs(part - amount * weight / total) <= 1 + amount / 2**40


def test_consumers_are_counted_by_name_up_to_a_limit(exact: LoadedRelease) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    for number in range(MAX_CONSUMERS + 4):
        batch = batch_of(exact, 3, consumers={f"app-{number}": 2, "till": 1})
        monitor.answered(role_of(exact), exact, batch, at_ms=1)
    (window,) = monitor.close(1000)
    found = window.cost.consumers
    assert len(found) == MAX_CONSUMERS + 1
    assert found["till"] == MAX_CONSUMERS + 4
    assert sum(found.values()) == window.rows
    assert found[OTHER_CONSUMERS] == 2 * 5
    codec.encode(windows.stamped(monitor.packed(window), "ab", 1))


def test_a_window_of_a_release_that_nobody_knows_is_dropped_and_counted(
    exact: LoadedRelease,
) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    monitor.failed(role_of(exact), {}, 3, exact.layout.confidence_size)
    assert monitor.close(1000) == []
    assert monitor.dropped_cells == 1
    monitor.know(exact.window_schema)
    monitor.failed(role_of(exact), {}, 3, exact.layout.confidence_size)
    (window,) = monitor.close(2000)
    assert window.errors == 3


def truth_of(release: LoadedRelease, batch: Batch) -> np.ndarray:
    summed = Histogram(release.layout)
    summed.update(batch.raw, batch.features, batch.probabilities)
    return summed.counts


def test_counts_leave_with_the_noise_that_the_manifest_asks_for(noisy: LoadedRelease) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0, rng=np.random.default_rng(9))
    batch, number = batch_of(noisy, 40), 300
    closed = []
    for _ in range(number):
        monitor.answered(role_of(noisy), noisy, batch, at_ms=1)
        closed += monitor.close(1000)
    found = np.array([np.frombuffer(window.counts, "<i8") for window in closed])
    schema = noisy.window_schema
    spread = np.sqrt([noise.variance(ratio) for ratio in schema.channel_ratios])
    expected = np.repeat(spread, schema.sizes)
    assert (found.std(axis=0) / expected).mean() == pytest.approx(1, abs=0.05)
    errors = (found.mean(axis=0) - truth_of(noisy, batch)) / expected * np.sqrt(number)
    assert np.abs(errors).max() < 5
    # How much and how fast is not hidden, and no label came that noise would have to hide.
    assert {w.rows for w in closed} == {40}
    assert {sum(np.frombuffer(w.latency, "<i8")) for w in closed} == {40}
    assert {(w.right, w.wrong) for w in closed} == {(b"", b"")}
    assert len({w.counts for w in closed}) == number
    monitor.packed(closed[0])


def test_what_noise_hides_is_not_sampled(noisy: LoadedRelease, exact: LoadedRelease) -> None:
    for release, samples in ((noisy, 0), (exact, 1)):
        monitor = Monitor(device="d1", sample_every=1, now_ms=0)
        batch = batch_of(release, 3, sampled=[Sampled(1)])
        monitor.answered(role_of(release), release, batch, at_ms=1)
        assert len(monitor.take_samples()) == samples


def test_pairs_leave_with_noise_as_well(noisy: LoadedRelease) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0, rng=np.random.default_rng(9))
    batch = batch_of(noisy, 40)
    seen: list[PairedCounts | None] = []
    for _ in range(30):
        monitor.shadowed(role_of(noisy, "shadow"), noisy, noisy.ref, batch, 40)
        seen += [window.paired for window in monitor.close(1000)]
    numbers = np.array([msgspec.structs.astuple(pair) for pair in seen if pair is not None])
    assert (numbers.std(axis=0) > 1).all()
    assert (numbers < 0).any()


def test_without_privacy_counts_are_exact(exact: LoadedRelease) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    batch = batch_of(exact, 40)
    monitor.answered(role_of(exact), exact, batch, at_ms=1)
    (window,) = monitor.close(1000)
    assert np.frombuffer(window.counts, "<i8").tolist() == truth_of(exact, batch).tolist()


def test_every_process_draws_other_noise(noisy: LoadedRelease, tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        monitor = Monitor(device="d1", sample_every=1, now_ms=0)
        monitor.answered(role_of(noisy), noisy, batch_of(noisy, 5), at_ms=1)
        (window,) = monitor.close(1000)
        seen.add(window.counts)
    assert len(seen) == 3
