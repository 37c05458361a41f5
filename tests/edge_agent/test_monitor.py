import msgspec
import numpy as np
import pytest

from edge_agent.monitor import (
    FOLD_ROWS,
    MAX_CELLS,
    MAX_WAITING_SAMPLES,
    WHOLE_CELLS,
    Batch,
    Monitor,
    Role,
)
from edge_agent.sampling import Sampled, Sampling
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import TAG_BYTES, PackedWindow, StatsWindow
from edge_core.stats.histogram import Histogram
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> LoadedRelease:
    return LoadedRelease.open(tiny_bundle(tmp_path_factory.mktemp("bundle")), TARGET)


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(device="d1", sample_every=10, now_ms=1000)


def batch_of(
    release: LoadedRelease,
    rows: int,
    *,
    seed: int = 0,
    side: str = "left",
    sampled: int | None = None,
) -> tuple[Role, Batch]:
    raw, _ = tiny_rows(rows, seed)
    features = release.evaluator.evaluate(release.evaluator.quantise(raw))
    batch = Batch(
        ids=[f"{seed}-{row}" for row in range(rows)],
        raw=raw,
        features=features,
        probabilities=outputs.probabilities(release.logits(raw, features)),
        latency_us=np.full(rows, 100.0),
        slices={"side": side},
        sampled=[] if sampled is None else [Sampled(sampled)],
    )
    role = Role(release=release.ref, target=TARGET, arm="incumbent", rollout=None)
    return role, batch


@pytest.mark.parametrize("sizes", [[1], [1] * 5, [FOLD_ROWS + 1], [3, FOLD_ROWS, 1, 200]])
def test_counts_do_not_depend_on_batches(
    monitor: Monitor, release: LoadedRelease, sizes: list[int]
) -> None:
    expected = Histogram(release.layout)
    for seed, size in enumerate(sizes):
        role, batch = batch_of(release, size, seed=seed)
        monitor.answered(role, release, batch, at_ms=1500)
        expected.update(batch.raw, batch.features, batch.probabilities)
    (window,) = monitor.close(2000)
    assert window.counts == expected.to_bytes()
    assert window.rows == sum(sizes) == sum(np.frombuffer(window.latency, "<i8"))


def test_windows_follow_one_another_without_gap_or_overlap(
    monitor: Monitor, release: LoadedRelease
) -> None:
    seen: list[StatsWindow] = []
    for now in (2000, 3000, 4000):
        monitor.answered(*_args(release, 2), at_ms=now - 500)
        seen += monitor.close(now)
    assert [(w.opened_ms, w.closed_ms, w.rows) for w in seen] == [
        (1000, 2000, 2),
        (2000, 3000, 2),
        (3000, 4000, 2),
    ]
    assert monitor.close(5000) == []


def _args(release: LoadedRelease, rows: int) -> tuple[Role, LoadedRelease, Batch]:
    role, batch = batch_of(release, rows)
    return role, release, batch


def test_each_role_and_slice_has_its_own_window(monitor: Monitor, release: LoadedRelease) -> None:
    role, left = batch_of(release, 3)
    _, right = batch_of(release, 4, side="right")
    candidate = msgspec.structs.replace(role, arm="candidate", rollout="r1")
    monitor.answered(role, release, left, at_ms=1500)
    monitor.answered(role, release, right, at_ms=1500)
    monitor.answered(candidate, release, left, at_ms=1500)
    monitor.failed(role, {"side": "left"}, 5, release.layout.confidence_size)
    closed = monitor.close(2000)
    found = {(w.arm, w.rollout, w.slices["side"]): (w.rows, w.errors) for w in closed}
    assert found == {
        ("incumbent", None, "left"): (3, 5),
        ("incumbent", None, "right"): (4, 0),
        ("candidate", "r1", "left"): (3, 0),
    }


def test_a_window_is_a_valid_message(monitor: Monitor, release: LoadedRelease) -> None:
    monitor.answered(*_args(release, 20), at_ms=1500)
    (window,) = monitor.close(2000)
    window = msgspec.structs.replace(window, epoch="ab12", sequence=3)
    stamped = windows.stamped(monitor.packed(window), "ab12", 3)
    head = windows.head(codec.decode(PackedWindow, codec.encode(stamped)))
    assert head[2:4] == (windows.sender_tag("d1"), release.window_schema.tag)
    assert windows.unpack(head, release.window_schema, "d1") == window


@pytest.mark.parametrize("rows", [1, 3, 10, 25])
def test_one_row_in_so_many_is_picked(rows: int) -> None:
    sampling = Sampling(10)
    picked = [
        start + row
        for start in range(0, 150, rows)
        if (row := sampling.pick(min(rows, 150 - start))) is not None
    ]
    assert picked[0] == 0
    # At most one of each job, so that fewer come of large ones.
    assert picked == list(range(0, 150, 10)) if rows <= 10 else picked == [0, 25, 50, 75, 100, 125]


def test_picked_rows_are_sampled(monitor: Monitor, release: LoadedRelease) -> None:
    role, batch = batch_of(release, 4, seed=10, sampled=2)
    monitor.answered(role, release, batch, at_ms=1500)
    (sample,) = monitor.take_samples()
    assert sample.prediction_id == "10-2"
    assert sample.definition == release.definition_digest
    raw, _ = tiny_rows(4, 10)
    assert sample.window == raw[2].astype("<f4").tobytes()
    again = release.evaluator.evaluate(release.evaluator.quantise(raw))
    assert sample.features == again[2].astype("<f4").tobytes()
    assert monitor.take_samples() == []


def test_waiting_samples_are_bounded(release: LoadedRelease) -> None:
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    for _ in range(MAX_WAITING_SAMPLES + 20):
        role, batch = batch_of(release, 1, sampled=0)
        monitor.answered(role, release, batch, at_ms=1)
    assert len(monitor.take_samples()) == MAX_WAITING_SAMPLES


def test_rows_of_too_many_slices_are_counted_together(
    monitor: Monitor, release: LoadedRelease
) -> None:
    role, batch = batch_of(release, 2)
    for number in range(3 * MAX_CELLS):
        own = msgspec.structs.replace(batch, slices={"region": str(number)})
        monitor.answered(role, release, own, at_ms=1)
    closed = monitor.close(2000)
    assert sum(window.rows for window in closed) == 2 * 3 * MAX_CELLS
    assert len(closed) == MAX_CELLS - WHOLE_CELLS + 1
    assert monitor.dropped_cells == 0


def test_open_cells_are_bounded(monitor: Monitor, release: LoadedRelease) -> None:
    role, batch = batch_of(release, 1)
    batch = msgspec.structs.replace(batch, slices={})
    for number in range(MAX_CELLS + 5):
        own = msgspec.structs.replace(role, rollout=f"r{number}")
        monitor.answered(own, release, batch, at_ms=1)
    assert monitor.dropped_cells == 5
    assert len(monitor.close(2000)) == MAX_CELLS


def test_the_shadow_s_window_names_its_pair(monitor: Monitor, release: LoadedRelease) -> None:
    role, batch = batch_of(release, 6)
    shadow = msgspec.structs.replace(role, arm="shadow")
    monitor.shadowed(shadow, release, release.ref, batch, agreements=4)
    (window,) = monitor.close(2000)
    assert window.paired is not None
    assert (window.paired.agree, window.paired.disagree, window.rows) == (4, 2, 6)
    assert window.paired_with == release.ref.digest[: 2 * TAG_BYTES]
