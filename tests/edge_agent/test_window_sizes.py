"""A real device-hour of 32 features, with latencies, cost and a consumer, fits in 450 bytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.meters import Meters
from edge_agent.monitor import Batch, Monitor, Role
from edge_core import outputs
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.messages import codec, windows
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import histogram
from edge_core.stats.histogram import Layout
from firmware_bundles.watch_activity.data import SIDES, load_recordings

FOLDER = Path(__file__).parents[2] / "firmware_bundles" / "watch_activity"
ROWS, FEATURES, LIMIT = 600, 32, 450
HOUR_MS = 3_600_000
OPENED_MS = 1_790_000_000_000
TRAINING = range(1, 5)
REF = ReleaseRef(model="watch-activity", version="1.1.0", digest="0123456789abcdef" * 4)

Float32 = npt.NDArray[np.float32]


class Hours:
    """Rows of every wearer, and the reference of the first four."""

    def __init__(self) -> None:
        definition = definitions.of_windows(
            definitions.parse((FOLDER / "features.json").read_bytes())
        )
        evaluator, window = Evaluator(definition), definition.window
        raw, owners = [], []
        for recording in load_recordings():
            starts = range(0, len(recording.samples) - window.samples + 1, window.hop)
            raw += [recording.samples[start : start + window.samples] for start in starts]
            owners += [(recording.subject, recording.side)] * len(starts)
        self.raw, self.owners = np.stack(raw), owners
        features = evaluator.evaluate(evaluator.quantise(self.raw))
        places = np.linspace(0, features.shape[1] - 1, FEATURES).astype(int)
        self.features = features[:, places]
        train = np.array([subject in TRAINING for subject, _ in owners])
        scaled = self.features - self.features[train].mean(axis=0)
        scaled /= self.features[train].std(axis=0)
        # Any model does: its scores are two of forty channels.
        weights = np.random.default_rng(1).normal(0, 0.5, (FEATURES, 7)).astype(np.float32)
        self.scores = outputs.probabilities(scaled @ weights)
        self.reference = histogram.build(
            inputs={
                name: self.raw[train][:, :, place].ravel()
                for place, name in enumerate(definition.input_names)
            },
            features={f"f{i}": self.features[train][:, i] for i in range(FEATURES)},
            confidence=self.scores[train].max(axis=1),
            predicted=self.scores[train].argmax(axis=1),
            classes=7,
        )

    def payload(self, places: npt.NDArray[np.intp]) -> bytes:
        """The whole MQTT payload of these rows' hour."""
        channels = self.reference.channels
        schema = WindowSchema(
            release=REF,
            targets=("cpu-aarch64-ort", "cpu-x86_64-ort"),
            slices=(("side", SIDES),),
            sizes=tuple(channel.size for channel in channels),
            confidence_size=channels[-2].size,
            epsilon=None,
            values=tuple(200 if c.kind == "input" else 1 for c in channels),
        )
        release: Any = SimpleNamespace(layout=Layout(self.reference), window_schema=schema)
        readings = iter([0.0, 1.2])
        moments = iter([0.0, 3600.4])
        sent = iter([0, 9_876])
        meters = Meters(
            cpu_seconds=lambda: next(readings),
            monotonic=lambda: next(moments),
            sent_bytes=lambda: next(sent),
        )
        monitor = Monitor(device="watch-1", sample_every=100, now_ms=OPENED_MS, meters=meters)
        role = Role(release=REF, target="cpu-x86_64-ort", arm="incumbent", rollout=None)
        batch = Batch(
            ids=["id"] * len(places),
            raw=self.raw[places],
            features=self.features[places],
            probabilities=self.scores[places],
            latency_us=np.random.default_rng(3).lognormal(4.4, 0.4, len(places)),
            slices={"side": "left"},
            consumers={"uid:1000/app": len(places)},
        )
        monitor.answered(role, release, batch, at_ms=OPENED_MS)
        (window,) = monitor.close(OPENED_MS + HOUR_MS)
        stamped = windows.stamped(monitor.packed(window), "01234567", 1234)
        head = windows.head(stamped)
        assert windows.unpack(head, schema, "watch-1").counts == window.counts
        return codec.encode(stamped)


@pytest.fixture(scope="module")
def hours() -> Hours:
    return Hours()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("subject", range(5, 11))
def test_an_hour_of_a_wearer_that_no_release_has_seen(
    hours: Hours, subject: int, side: str
) -> None:
    own = np.flatnonzero([owner == (subject, side) for owner in hours.owners])
    assert len(hours.payload(own[np.arange(ROWS) % len(own)])) <= LIMIT


def test_an_hour_like_the_reference_is_smaller(hours: Hours) -> None:
    train = np.flatnonzero([subject in TRAINING for subject, _ in hours.owners])
    chosen = train[np.random.default_rng(2).integers(0, len(train), ROWS)]
    assert len(hours.payload(chosen)) <= 375
