"""The drift detector on real watches: subjects 6 to 10, replayed in a loop by twenty devices."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.stats import histogram
from edge_core.stats.histogram import Histogram, Layout
from firmware_bundles.watch_activity.data import SIDES, load_recordings
from fleet_server.domain.drifting.detector import GROWING_PERIODS, observe
from fleet_server.domain.drifting.expectation import Seen, Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import Channels, WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE, DriftState

FEATURES = Path(__file__).parents[3] / "firmware_bundles/watch_activity/features.json"
TRAINING_SUBJECTS = range(1, 6)
FLEET_SUBJECTS = range(6, 11)
SPEED = 20
PERIOD_SECONDS = 4
SETTINGS = Settings()
TURNED = (1, 2)  # ay and az

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class Replay:
    """Counts of every row of every wearer, upright and turned, ready to be added up."""

    def __init__(self) -> None:
        definition = definitions.parse(FEATURES.read_bytes())
        self._evaluator = Evaluator(definition)
        self._window = definition.window
        recordings = load_recordings()
        train = np.concatenate(
            [self._rows(r.samples) for r in recordings if r.subject in TRAINING_SUBJECTS]
        )
        features = self._features(train)
        # A model is no part of this: every row gets the same answer.
        confidence = np.full(len(train), 0.5, np.float32)
        reference = histogram.build(
            inputs={n: train[:, :, i].ravel() for i, n in enumerate(definition.input_names)},
            features={n: features[:, i] for i, n in enumerate(definition.feature_names)},
            confidence=confidence,
            predicted=np.zeros(len(train), np.int64),
            classes=2,
        )
        self._layout = Layout(reference)
        self.channels = Channels(
            [
                WatchedChannel(
                    name=c.name,
                    kind=c.kind,
                    usual=tuple(c.counts),
                    ordered=c.name != "predicted",
                )
                for c in reference.channels
            ]
        )
        self._loops: dict[bool, list[Int64]] = {False: [], True: []}
        for turned, loops in self._loops.items():
            for subject in FLEET_SUBJECTS:
                for side in SIDES:
                    own = [r for r in recordings if (r.subject, r.side) == (subject, side)]
                    loops.append(np.concatenate([self._counts(r.samples, turned) for r in own]))

    def _rows(self, samples: Float32) -> Float32:
        starts = range(0, len(samples) - self._window.samples + 1, self._window.hop)
        return np.stack([samples[start : start + self._window.samples] for start in starts])

    def _features(self, rows: Float32) -> Float32:
        return self._evaluator.evaluate(self._evaluator.quantise(rows))

    def _counts(self, samples: Float32, turned: bool) -> Int64:
        """Flat counts of each row, int64 [rows, total]."""
        signs = np.ones(samples.shape[1], np.float32)
        signs[list(TURNED) if turned else []] = -1
        rows = self._rows(samples * signs)
        features = self._features(rows)
        found = []
        for place in range(len(rows)):
            one = Histogram(self._layout)
            answer = np.array([[0.5, 0.5]], np.float32)
            one.update(rows[place : place + 1], features[place : place + 1], answer)
            found.append(one.counts.copy())
        return np.array(found)

    def rows_per_period(self) -> int:
        """Rows of one device."""
        return round(PERIOD_SECONDS * SPEED * 50 / self._window.hop)

    def period(self, number: int, offsets: Int64, turned_share: float) -> tuple[int, Int64]:
        """(rows, counts) of all devices; the turned share is the period's end."""
        rows = self.rows_per_period()
        turn = round(rows * (1 - turned_share))
        total = np.zeros(self._layout.total, np.int64)
        times = number * rows + np.arange(rows)
        for device, offset in enumerate(offsets):
            for turned, part in ((False, times[:turn]), (True, times[turn:])):
                loop = self._loops[turned][device // 2]
                total += loop[(part + offset) % len(loop)].sum(axis=0)
        return rows * len(offsets), total


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay()


def watch(
    replay: Replay, seed: int, state: DriftState, numbers: range, turned_at: float
) -> tuple[DriftFinding | None, int]:
    """Replay periods until something is found: finding, last period."""
    devices = 2 * len(FLEET_SUBJECTS) * len(SIDES)
    offsets = np.random.default_rng(seed).integers(0, 1000, devices)
    finding, number = None, numbers.start
    for number in numbers:
        share = float(np.clip(number + 1 - turned_at, 0, 1))
        seen = {EVERYONE: {"incumbent": Seen(*replay.period(number, offsets, share))}}
        hour = number * PERIOD_SECONDS // 3600
        finding = observe(state, replay.channels, seen, number, hour, SETTINGS)
        if finding is not None:
            break
    return finding, number


def grown(
    replay: Replay,
    seed: int,
    state: DriftState,
    finding: DriftFinding,
    opened: int,
    turned_at: float,
) -> DriftFinding:
    """The finding with what joined it in the periods after."""
    for number in range(opened + 1, opened + 1 + GROWING_PERIODS):
        more, _ = watch(replay, seed, state, range(number, number + 1), turned_at)
        finding = more or finding
    return finding


@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_of_real_movement_raise_no_alarm_and_turned_watches_do(
    replay: Replay, seed: int
) -> None:
    minutes = 10 * 60 // PERIOD_SECONDS
    never = float("inf")
    state = DriftState(len(replay.channels))
    finding, _ = watch(replay, seed, state, range(minutes), never)
    assert finding is None
    turned_at = minutes + 0.5  # in the middle of a period
    finding, number = watch(replay, seed, state, range(minutes, minutes + 10), turned_at)
    assert finding is not None
    assert number + 1 - turned_at <= 3
    assert finding.kind == "data"
    finding = grown(replay, seed, state, finding, number, turned_at)
    assert {f.channel for f in finding.figures if f.kind == "input"} == {"ay", "az"}
    assert minutes - 3 <= finding.since <= minutes


def test_watches_turned_early_are_found_as_well(replay: Replay) -> None:
    first = SETTINGS.learning_periods + 2
    state = DriftState(len(replay.channels))
    finding, number = watch(replay, 9, state, range(40), float(first))
    assert finding is not None
    assert number < first + 3
    finding = grown(replay, 9, state, finding, number, float(first))
    assert "ay" in finding.channels
