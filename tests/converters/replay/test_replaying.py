"""Training and serving compute the same bits; every way in which they would not is noticed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

from converters.cli import app
from converters.data import event_log
from converters.data.event_log import SampleLog
from converters.replay import windows as replaying_windows
from edge_core.errors import InvalidInput
from edge_core.features import agreement
from edge_core.features.evaluation import Evaluator, Int32
from edge_core.features.over_samples import BandEnergy, Count, Mean, Std, Sum
from edge_core.features.reductions import MISSING
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream, Windows
from tests.simulators.tiny_bundle import tiny_bundle

DEFINITION = WindowDefinition(
    inputs=[
        SensorInput(
            name="ax", unit="g", lsb=2**-16, low=-8, high=8, null_policy="skip", min_valid=11
        ),
        SensorInput(name="ay", unit="g", lsb=2**-10, low=-8, high=8),
    ],
    window=Window(samples=20, hop=10, max_gap_ms=400, rate_hz=50.0),
    features=[
        Mean(name="ax_mean", input="ax", default=-1.0),
        Count(name="ax_count", input="ax", default=0.0),
        Std(name="ay_std", input="ay"),
        Sum(name="ay_sum", input="ay"),
        BandEnergy(name="ay_band", input="ay", low_hz=2.5, high_hz=10.0),
    ],
)


def log(samples: int = 1000) -> SampleLog:
    """Two streams by turns, with gaps, late and repeated samples, and missing ones."""
    draw = np.random.default_rng(11)
    names = [("left", "right")[turn] for turn in draw.integers(0, 2, samples)]
    steps = draw.choice([20_000] * 100 + [0, -40_000, 600_000], samples)
    times = 1_790_000_000_000_000 + np.cumsum(steps)
    values = draw.normal(0.5, 2, (samples, 2)).astype(np.float32)
    values[draw.random(samples) < 0.4, 0] = np.nan
    return SampleLog(times, names, values)


class Fault(FeatureStream):
    """A stream with one deliberate fault in what it answers."""

    def push(self, times_us: npt.ArrayLike, samples: npt.ArrayLike) -> Windows:
        windows = super().push(times_us, samples)
        return windows._replace(features=self.faulty(windows))

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        raise NotImplementedError


class FloatSums(Fault):
    """Sums of float32, one sample after the other."""

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        features = windows.features.copy()
        features[:, 3] = np.add.accumulate(windows.raw[:, :, 1], axis=1, dtype=np.float32)[:, -1]
        return features


class WrongFill(Fault):
    """Zero stands for what cannot be had, not the declared default."""

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        features = windows.features.copy()
        features[features[:, 0] == -1.0, 0] = 0.0
        return features


class MissingIsZero(Fault):
    """A missing sample counts as a zero."""

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        filled: Int32 = np.where(windows.quantised == MISSING, np.int32(0), windows.quantised)
        return Evaluator(DEFINITION).evaluate(filled)


class SampleDeviation(Fault):
    """The deviation divides by one less."""

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        features = windows.features.copy()
        features[:, 2] = (windows.quantised[:, :, 1] * 2**-10).std(axis=1, ddof=1)
        return features


class OtherRounding(Fault):
    """Samples are cut to multiples of lsb, not rounded."""

    def faulty(self, windows: Windows) -> npt.NDArray[np.float32]:
        lsb = np.array([2**-16, 2**-10])
        return Evaluator(DEFINITION).evaluate(
            np.where(np.isnan(windows.raw), MISSING, np.floor(windows.raw / lsb)).astype(np.int32)
        )


class OffByOne(FeatureStream):
    """Windows that are one sample behind."""

    def push(self, times_us: npt.ArrayLike, samples: npt.ArrayLike) -> Windows:
        shifted = np.asarray(samples).copy()
        shifted[1:] = shifted[:-1].copy()
        return super().push(times_us, shifted)


class Forgetful(FeatureStream):
    """A restart that loses what was collected."""

    def snapshot(self) -> bytes:
        return FeatureStream(DEFINITION).snapshot()


class TakesLate(FeatureStream):
    """Samples that come late are taken as if they were new."""

    def push(self, times_us: npt.ArrayLike, samples: npt.ArrayLike) -> Windows:
        return super().push(np.maximum.accumulate(np.asarray(times_us)) + _steps(times_us), samples)


def _steps(times_us: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.arange(len(np.asarray(times_us)))


class IgnoresGaps(FeatureStream):
    """Windows span holes in time."""

    def __init__(self, definition: WindowDefinition, evaluator: Evaluator | None = None) -> None:
        super().__init__(definition, evaluator)
        self._window = Window(samples=20, hop=10, max_gap_ms=10**6, rate_hz=50.0)


FAULTS: list[type[FeatureStream]] = [
    FloatSums,
    WrongFill,
    MissingIsZero,
    SampleDeviation,
    OtherRounding,
    OffByOne,
    Forgetful,
    TakesLate,
    IgnoresGaps,
]


def test_training_and_serving_agree() -> None:
    found = replaying_windows.replay(DEFINITION, log())
    assert found.holds
    assert found.rows > 10
    assert all(feature.compared == found.rows for feature in found.features)


@pytest.mark.parametrize(
    ("fault", "side"),
    [
        (fault, side)
        for fault in FAULTS
        for side in ("training", "serving")
        if (fault, side) != (Forgetful, "training")  # training never restarts
    ],
)
def test_every_fault_on_either_side_is_caught(fault: type[FeatureStream], side: str) -> None:
    found = replaying_windows.replay(DEFINITION, log(), **{side: fault})
    assert not found.holds
    assert found.missing or found.extra or any(entry.mismatched for entry in found.features)


def test_the_feature_that_differs_is_named_with_its_rows() -> None:
    found = replaying_windows.replay(DEFINITION, log(), serving=SampleDeviation)
    (feature,) = [entry for entry in found.features if entry.mismatched]
    assert feature.feature == "ay_std"
    assert feature.mismatched == feature.compared == found.rows
    assert feature.first[0].row.split()[0] in ("left", "right")
    assert feature.first[0].expected != feature.first[0].found


def test_rows_that_one_side_lacks_are_counted() -> None:
    one, other = np.zeros(2, np.float32), np.ones(2, np.float32)
    found = agreement.compare(["a", "b"], {1: one, 2: one, 3: one}, {2: one, 3: other, 4: one})
    assert (found.rows, found.missing, found.extra) == (2, 1, 1)
    assert (found.first_missing, found.first_extra) == (["1"], ["4"])
    assert [entry.mismatched for entry in found.features] == [1, 1]
    assert not agreement.compare(["a"], {}, {}).holds


def table(found: SampleLog) -> pa.Table:
    return pa.table(
        {
            "time_us": found.times_us,
            "stream": found.streams,
            "ax": found.samples[:, 0],
            "ay": found.samples[:, 1],
            "comment": ["unused"] * len(found.streams),
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_log_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path, wanted = tmp_path / f"log{suffix}", log()
    (csv.write_csv if suffix == ".csv" else parquet.write_table)(table(wanted), path)
    found = event_log.read(path, DEFINITION.inputs)
    assert found.streams == wanted.streams
    assert found.times_us.tolist() == wanted.times_us.tolist()
    assert found.samples.tobytes() == wanted.samples.tobytes()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _without_channel(path: Path) -> None:
    parquet.write_table(parquet.read_table(path).drop_columns(["ay"]), path)


def _text(path: Path) -> None:
    words = pa.array(["far"] * 1000)
    parquet.write_table(
        parquet.read_table(path).drop_columns(["ay"]).append_column("ay", words), path
    )


def _no_time(path: Path) -> None:
    times = pa.array([None] * 1000, pa.int64())
    rest = parquet.read_table(path).drop_columns(["time_us"])
    parquet.write_table(rest.append_column("time_us", times), path)


def _empty(path: Path) -> None:
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_truncated, "cannot be read"),
        (_without_channel, "no column ay"),
        (_text, "ay is string; needed is a number"),
        (_no_time, "time_us: a moment is missing"),
        (_empty, "0 rows"),
        (Path.unlink, "log.parquet is missing"),
    ],
)
def test_a_log_that_cannot_be_replayed_says_why(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    path = tmp_path / "log.parquet"
    parquet.write_table(table(log()), path)
    damage(path)
    with pytest.raises(InvalidInput, match=named) as refused:
        event_log.read(path, DEFINITION.inputs)
    assert "\n" not in str(refused.value)


def test_a_log_too_short_for_a_window_proves_nothing() -> None:
    with pytest.raises(InvalidInput, match="completes no window of 20 samples"):
        replaying_windows.replay(DEFINITION, log(15))


@contextmanager
def written(folder: Path, samples: int) -> Iterator[tuple[Path, Path]]:
    bundle = tiny_bundle(folder / "bundle")
    found = log(samples)
    values = np.nan_to_num(found.samples)
    path = folder / "log.csv"
    csv.write_csv(table(found._replace(samples=values)), path)
    yield bundle, path


def test_the_command_tells_what_was_compared(tmp_path: Path) -> None:
    with written(tmp_path, 1000) as (bundle, path):
        done = CliRunner().invoke(app, ["parity", str(bundle), str(path)])
        assert done.exit_code == 0, done.output
        told = CliRunner().invoke(app, ["parity", str(bundle), str(path), "--json"])
    said = json.loads(told.stdout)
    assert said["rows"] > 20
    assert said["missing"] == said["extra"] == 0
    assert {entry["compared"] for entry in said["features"]} == {said["rows"]}
