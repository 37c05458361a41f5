"""Windows by event time: the same bytes for any chunking, against a reading sample by sample."""

import itertools
from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidInput
from edge_core.features.evaluation import Evaluator
from edge_core.features.over_samples import Energy, Mean, Std
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import MAX_TIME_US, FeatureStream, Windows

STEP_US = 20_000
GAP_US = 100_000

# Mostly on time; some late, repeated, just within a gap, and beyond it.
STEPS = st.lists(
    st.sampled_from([STEP_US] * 8 + [0, -STEP_US, -3 * GAP_US, GAP_US, GAP_US + 1, 5 * GAP_US]),
    max_size=60,
)
CUTS = st.lists(st.integers(0, 60), max_size=12)


def define(samples: int = 5, hop: int = 3) -> WindowDefinition:
    inputs = [
        SensorInput(name="ax", unit="g", lsb=2**-10, low=-8.0, high=8.0),
        SensorInput(name="ay", unit="g", lsb=2**-10, low=-8.0, high=8.0),
    ]
    return WindowDefinition(
        inputs=inputs,
        window=Window(samples=samples, hop=hop, max_gap_ms=GAP_US // 1000, rate_hz=50.0),
        features=[
            Std(name="ay_std", input="ay"),
            Mean(name="ax_mean", input="ax"),
            Energy(name="ax_energy", input="ax"),
        ],
    )


DEFINITION = define()
EVALUATOR = Evaluator(DEFINITION)
GAPPY = msgspec.structs.replace(
    DEFINITION,
    inputs=[
        msgspec.structs.replace(entry, null_policy="skip", min_valid=2)
        for entry in DEFINITION.inputs
    ],
    features=[msgspec.structs.replace(feature, default=-1.0) for feature in DEFINITION.features],
)


def sensor(steps: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Times from steps, and samples that differ from one another."""
    times = 1_700_000_000_000_000 + np.cumsum(np.array([0, *steps], dtype=np.int64))
    samples = np.random.default_rng(len(times)).normal(0, 3, (len(times), 2))
    return times, samples.astype(np.float32)


def joined(parts: list[Windows]) -> tuple[bytes, ...]:
    return tuple(np.concatenate(columns).tobytes() for columns in zip(*parts, strict=True))


def slowly(times: list[int], size: int, hop: int) -> tuple[list[npt.NDArray[np.intp]], int, int]:
    """Rows of each window, late and gaps, by looking at one sample after the other."""
    found, late, gaps = [], 0, 0
    held: list[int] = []
    newest: int | None = None
    for row, time in enumerate(times):
        if newest is not None and time <= newest:
            late += 1
            continue
        if newest is not None and time - newest > GAP_US:
            gaps += 1
            held = []
        newest = time
        held.append(row)
        if len(held) == size:
            found.append(np.array(held))
            held = held[hop:]
    return found, late, gaps


@settings(max_examples=150, deadline=None)
@given(STEPS, CUTS)
def test_any_chunking_gives_the_same_bytes_and_counts(steps: list[int], cuts: list[int]) -> None:
    times, samples = sensor(steps)
    whole, chunked = FeatureStream(DEFINITION), FeatureStream(DEFINITION, EVALUATOR)
    expected = joined([whole.push(times, samples)])
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    parts = [
        chunked.push(times[start:stop], samples[start:stop])
        for start, stop in itertools.pairwise(edges)
    ]
    assert joined(parts) == expected
    assert (chunked.late, chunked.gaps) == (whole.late, whole.gaps)


@settings(max_examples=150, deadline=None)
@given(STEPS, CUTS)
def test_a_restart_at_any_sample_changes_no_byte(steps: list[int], cuts: list[int]) -> None:
    times, samples = sensor(steps)
    samples[::7, 0] = np.nan
    whole, restarted = FeatureStream(GAPPY), FeatureStream(GAPPY)
    expected = joined([whole.push(times, samples)])
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    parts = []
    for start, stop in itertools.pairwise(edges):
        restarted = FeatureStream.restore(GAPPY, restarted.snapshot())
        parts.append(restarted.push(times[start:stop], samples[start:stop]))
    assert joined(parts) == expected
    assert (restarted.late, restarted.gaps) == (whole.late, whole.gaps)
    assert restarted.snapshot() == whole.snapshot()


def test_a_damaged_or_foreign_snapshot_is_refused() -> None:
    stream = FeatureStream(DEFINITION)
    stream.push(*sensor([STEP_US] * 3))
    data = stream.snapshot()
    for cut in range(len(data)):
        with pytest.raises(InvalidInput, match="snapshot is damaged"):
            FeatureStream.restore(DEFINITION, data[:cut])
    with pytest.raises(InvalidInput, match="another feature definition"):
        FeatureStream.restore(define(6), data)
    fields = msgspec.msgpack.decode(data)
    backwards = np.frombuffer(fields["times"], "<i8")[::-1].tobytes()
    full = {
        "times": np.arange(5, dtype="<i8").tobytes(),
        "raw": np.zeros((5, 2), "<f4").tobytes(),
    }
    for change in ({"times": backwards}, full, {"raw": b"\xff" * len(fields["raw"])}):
        with pytest.raises(InvalidInput):
            FeatureStream.restore(DEFINITION, msgspec.msgpack.encode(fields | change))


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(2, 6), st.data())
def test_windows_are_those_of_a_reading_sample_by_sample(
    steps: list[int], size: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers(1, size))
    definition = define(size, hop)
    times, samples = sensor(steps)
    stream = FeatureStream(definition)
    windows = stream.push(times, samples)
    rows, late, gaps = slowly(times.tolist(), size, hop)
    assert (stream.late, stream.gaps) == (late, gaps)
    assert windows.first_us.tolist() == [int(times[part[0]]) for part in rows]
    assert windows.last_us.tolist() == [int(times[part[-1]]) for part in rows]
    expected = np.array([samples[part] for part in rows]).reshape(-1, size, 2)
    assert windows.raw.tobytes() == expected.astype(np.float32).tobytes()


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_stream_gives_what_a_batch_gives(steps: list[int]) -> None:
    windows = FeatureStream(DEFINITION).push(*sensor(steps))
    quantised = EVALUATOR.quantise(windows.raw)
    assert windows.quantised.tobytes() == quantised.tobytes()
    assert windows.features.tobytes() == EVALUATOR.evaluate(quantised).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=30))
def test_interleaved_streams_do_not_touch_one_another(turns: list[tuple[int, int]]) -> None:
    sources = [sensor([STEP_US + extra] * 300) for extra in range(3)]
    streams = [FeatureStream(DEFINITION, EVALUATOR) for _ in sources]
    taken, parts = [0, 0, 0], [[stream.push([], np.empty((0, 2)))] for stream in streams]
    for entity, count in turns:
        chosen = slice(taken[entity], taken[entity] + count)
        taken[entity] += count
        times, samples = sources[entity]
        parts[entity].append(streams[entity].push(times[chosen], samples[chosen]))
    for entity, (times, samples) in enumerate(sources):
        alone = FeatureStream(DEFINITION).push(times[: taken[entity]], samples[: taken[entity]])
        assert joined(parts[entity]) == joined([alone])


def test_late_and_repeated_samples_are_dropped_and_counted() -> None:
    times, samples = sensor([STEP_US] * 6)
    clean = FeatureStream(DEFINITION).push(times, samples)
    stream = FeatureStream(DEFINITION)
    parts = [stream.push(times[:4], samples[:4])]
    parts.append(stream.push(times[[3, 0, 2]], samples[[3, 0, 2]] + 1))
    parts.append(stream.push(times[4:], samples[4:]))
    assert joined(parts) == joined([clean])
    assert (stream.late, stream.gaps) == (3, 0)


def test_no_window_spans_a_gap() -> None:
    times, samples = sensor([STEP_US] * 3 + [GAP_US + 1] + [STEP_US] * 4)
    stream = FeatureStream(DEFINITION)
    windows = stream.push(times, samples)
    assert windows.first_us.tolist() == [times[4]]
    assert (stream.late, stream.gaps) == (0, 1)


def test_a_step_of_just_the_largest_gap_is_no_gap() -> None:
    times, samples = sensor([GAP_US] * 4)
    stream = FeatureStream(DEFINITION)
    assert len(stream.push(times, samples).features) == 1
    assert stream.gaps == 0


def test_a_refused_push_takes_nothing() -> None:
    times, samples = sensor([STEP_US] * 4)
    stream = FeatureStream(DEFINITION)
    stream.push(times[:2], samples[:2])
    broken = samples[2:].copy()
    broken[1, 1] = np.nan
    with pytest.raises(InvalidInput, match="infinity in ay;"):
        stream.push(times[2:], broken)
    windows = stream.push(times[2:], samples[2:])
    assert windows.first_us.tolist() == [times[0]]
    assert (stream.late, stream.gaps) == (0, 0)


def test_memory_is_bounded_by_one_window() -> None:
    times, samples = sensor([STEP_US] * 999)
    stream = FeatureStream(DEFINITION)
    stream.push(times, samples)
    assert len(stream._times) < DEFINITION.window.samples
    assert stream._raw.base is None


def test_what_was_pushed_may_change_afterwards() -> None:
    times, samples = sensor([STEP_US] * 4)
    kept = samples.copy()
    stream = FeatureStream(DEFINITION)
    stream.push(times[:4], samples[:4])
    samples[:] = 0
    assert stream.push(times[4:], kept[4:]).raw.tobytes() == kept.tobytes()


@pytest.mark.parametrize(
    "times",
    [0, [[0, 1]], [0.5, 1.5], ["a", "b"], [True, False], [None, None], [10**30, 1]],
    ids=str,
)
def test_times_have_to_be_whole_microseconds(times: npt.ArrayLike) -> None:
    with pytest.raises(InvalidInput, match="whole microseconds"):
        FeatureStream(DEFINITION).push(times, np.zeros((2, 2)))


@pytest.mark.parametrize("time", [MAX_TIME_US, -MAX_TIME_US, 2**63 - 1, -(2**63), 2**64 - 1])
def test_a_time_that_cannot_be_subtracted_is_refused(time: int) -> None:
    stream = FeatureStream(DEFINITION)
    with pytest.raises(InvalidInput, match="beyond"):
        stream.push([time], np.zeros((1, 2)))
    assert len(stream.push([0], np.zeros((1, 2))).features) == 0


def test_the_widest_step_between_two_times_is_one_gap() -> None:
    stream = FeatureStream(DEFINITION)
    stream.push([1 - MAX_TIME_US, MAX_TIME_US - 1], np.zeros((2, 2)))
    assert (stream.late, stream.gaps) == (0, 1)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (2, 1, 2), (2,)])
def test_samples_and_times_have_to_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"needed is \[2, 2\]"):
        FeatureStream(DEFINITION).push([0, 1], np.zeros(shape))


def test_a_ragged_list_of_times_is_refused() -> None:
    with pytest.raises(InvalidInput, match="whole microseconds"):
        FeatureStream(DEFINITION).push([[0], [1, 2]], np.zeros((2, 2)))
