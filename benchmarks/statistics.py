"""What statistics cost a device: time for each row, and bytes for each window.

Rows are real: subjects 6 to 10 of the watch data, whom the reference has never seen, and flights.
The straightforward peer counts each channel with ``np.digitize``, as one would write it first;
DDSketch keeps a quantile sketch for each channel. Sizes stand beside msgpack of u32 counts and zlib
of that. Figures are of one core.
"""

import argparse
import json
import os
import platform
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from ddsketch import DDSketch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from edge_agent.monitor import Batch, Monitor, Role
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import StatsWindow
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import histogram, noise, packing, projection
from edge_core.stats.histogram import Layout, Reference
from firmware_bundles.watch_activity.data import SIDES, TRAINING_SUBJECTS, load_recordings

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
WATCH = ROOT / "firmware_bundles" / "watch_activity"
ROWS = 600
"""Of a device-hour."""
FEATURES = 32
SINGLE_GOAL_US, BATCH_GOAL_US, SIZE_GOAL = 25.0, 1.0, 450
BATCH = 64
FLEET = range(6, 11)
HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000
TARGET = "cpu-x86_64-ort"
EPSILON = 1.0
EMBEDDING, DIRECTIONS = 64, 8

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Data(NamedTuple):
    """Rows of one kind, float32: raw [n, samples, inputs], features [n, f], scores [n, classes]."""

    raw: Float32
    features: Float32
    scores: Float32

    def only(self, places: Any) -> "Data":
        """The rows at these places."""
        return Data(*(part[places] for part in self))


class Watches:
    """Rows of all subjects, and a reference from those that build releases."""

    def __init__(self, features: int) -> None:
        definition = definitions.parse((WATCH / "features.json").read_bytes())
        assert hasattr(definition, "window")
        evaluator, window = Evaluator(definition), definition.window
        # Features of one channel after the other: every other kind of the first 32.
        kept = np.linspace(0, len(definition.feature_names) - 1, features).astype(int)
        raw, labels, self.owners = [], [], []
        for recording in load_recordings():
            starts = range(0, len(recording.samples) - window.samples + 1, window.hop)
            raw += [recording.samples[start : start + window.samples] for start in starts]
            labels += [recording.activity] * len(starts)
            self.owners += [(recording.subject, recording.side)] * len(starts)
        stacked = np.stack(raw)
        values = evaluator.evaluate(evaluator.quantise(stacked))[:, kept]
        train = np.array([owner[0] in TRAINING_SUBJECTS for owner in self.owners])
        mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
        model = LogisticRegression(max_iter=500)
        model.fit(((values - mean) / deviation)[train], np.array(labels)[train])
        scores = model.predict_proba((values - mean) / deviation).astype(np.float32)
        self.all = Data(stacked, values, scores)
        self.train = self.all.only(train)
        names = definition.input_names
        training: dict[str, Any] = {
            "inputs": {name: self.train.raw[:, :, i].ravel() for i, name in enumerate(names)},
            "features": {f"f{i}": self.train.features[:, i] for i in range(features)},
            "confidence": self.train.scores.max(axis=1),
            "predicted": self.train.scores.argmax(axis=1),
            "classes": scores.shape[1],
        }
        self.reference = histogram.build(**training)
        directions = np.random.default_rng(3).normal(0, 1 / features, (features, EMBEDDING))
        self._layer = lambda some: np.maximum((some - mean) / deviation @ directions, 0)
        self.embedded = histogram.build(
            **training,
            embedding=self.embedding(self.train),
            projection=projection.draw("watch-activity@1.1.0", EMBEDDING, DIRECTIONS),
        )

    def embedding(self, data: Data) -> Float32:
        """What a hidden layer with random weights makes of features."""
        return self._layer(data.features).astype(np.float32)

    def of(self, subject: int, side: str) -> Data:
        """An hour of one wearer: the recordings in a loop."""
        own = np.flatnonzero([owner == (subject, side) for owner in self.owners])
        return self.all.only(own[np.arange(ROWS) % len(own)])


def schema_of(reference: Reference, samples: int, epsilon: float | None = None) -> WindowSchema:
    return WindowSchema(
        release=ReleaseRef(model="watch-activity", version="1.1.0", digest="c0ffee" * 10 + "abcd"),
        targets=("cpu-aarch64-ort", "cpu-aarch64-tflite", TARGET),
        slices=(("side", SIDES),),
        sizes=tuple(channel.size for channel in reference.channels),
        confidence_size=reference.channels[-2].size,
        epsilon=epsilon,
        values=tuple(samples if c.kind == "input" else 1 for c in reference.channels),
    )


class Device:
    """A monitor with what it has to know of its release, and no model."""

    def __init__(
        self, reference: Reference, samples: int, epsilon: float | None = None, seed: int = 0
    ) -> None:
        self.layout = Layout(reference)
        self.schema = schema_of(reference, samples, epsilon)
        self.release: Any = SimpleNamespace(layout=self.layout, window_schema=self.schema)
        self.monitor = Monitor(
            device="watch-0001",
            sample_every=100,
            now_ms=NOW_MS,
            rng=np.random.default_rng(seed),
        )

    def role(self, arm: Any = "incumbent", rollout: str | None = None) -> Role:
        """How the release answers."""
        return Role(release=self.schema.release, target=TARGET, arm=arm, rollout=rollout)

    def payloads(self) -> list[bytes]:
        """Whole MQTT payloads of the hour."""
        return [self.payload(window) for window in self.monitor.close(NOW_MS + HOUR_MS)]

    def payload(self, window: StatsWindow) -> bytes:
        """One of them, with a cost as large as a real one."""
        cost = msgspec.structs.replace(
            window.cost, cpu_us=1_234_567, sent_bytes=9_876, span_ms=HOUR_MS
        )
        body = self.monitor.packed(msgspec.structs.replace(window, cost=cost))
        return codec.encode(windows.stamped(body, "01234567", 1234))


def batches(data: Data, size: int, **more: Any) -> list[Batch]:
    """The rows as the engine hands them over, ``size`` at a time."""
    found, rng = [], np.random.default_rng(size)
    for start in range(0, len(data.raw) - size + 1, size):
        part = data.only(slice(start, start + size))
        found.append(
            Batch(
                ids=["id"] * size,
                raw=part.raw.copy(),
                features=part.features.copy(),
                probabilities=part.scores.copy(),
                latency_us=rng.lognormal(4.4, 0.4, size),
                slices={"side": "left"},
                consumers={"uid:1000/app": size},
                **more,
            )
        )
    return found


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def ours(device: Device, given: Sequence[Batch]) -> None:
    role = device.role()
    for batch in given:
        device.monitor.answered(role, device.release, batch, NOW_MS)
    device.monitor.close(NOW_MS)


def digitized(reference: Reference, given: Sequence[Batch]) -> None:
    """Each channel of each batch by itself."""
    edges = [np.array(channel.edges, np.float32) for channel in reference.channels]
    counts = [np.zeros(len(own) + 1, np.int64) for own in edges]
    for batch in given:
        for own, values, total in zip(edges, _columns(batch), counts, strict=True):
            total += np.bincount(np.digitize(values, own), minlength=len(own) + 1)


def sketched(reference: Reference, given: Sequence[Batch]) -> None:
    """A sketch for each channel takes one value at a time."""
    sketches = [DDSketch(0.02) for _ in reference.channels]
    for batch in given:
        for sketch, values in zip(sketches, _columns(batch), strict=True):
            for value in values.tolist():
                sketch.add(value)


def _columns(batch: Batch) -> list[Float32]:
    raw = batch.raw
    return [
        *(raw[:, :, place].ravel() for place in range(raw.shape[2])),
        *batch.features.T,
        batch.probabilities.max(axis=1),
        batch.probabilities.argmax(axis=1).astype(np.float32),
    ]


def drawn(samples: int, inputs: int) -> tuple[Reference, Data]:
    """Rows of another shape, drawn; what they are does not change the time."""
    rng = np.random.default_rng(5)
    rows = 2048
    scores = rng.dirichlet(np.ones(7), rows).astype(np.float32)
    raw = rng.normal(0, 1, (rows, samples, inputs)).astype(np.float32)
    data = Data(raw, rng.normal(0, 1, (rows, FEATURES)).astype(np.float32), scores)
    reference = histogram.build(
        inputs={f"x{i}": raw[:, :, i].ravel() for i in range(inputs)},
        features={f"f{i}": data.features[:, i] for i in range(FEATURES)},
        confidence=scores.max(axis=1),
        predicted=scores.argmax(axis=1),
        classes=7,
    )
    return reference, data


def speed_rows(name: str, reference: Reference, data: Data, repeats: int) -> list[dict[str, Any]]:
    """Time a row, by ones and in batches, beside both peers on the same batches."""
    device = Device(reference, data.raw.shape[1])
    found = []
    for size, goal in ((1, SINGLE_GOAL_US), (BATCH, BATCH_GOAL_US)):
        given = batches(data, size)
        rows = size * len(given)
        us = fastest(lambda given=given: ours(device, given), repeats) / rows * 1e6
        few = given[: max(1, 256 // size)]
        for peer, work in (("np.digitize", digitized), ("DDSketch", sketched)):
            part = few if work is digitized else few[: max(1, 64 // size)]
            seconds = fastest(lambda w=work, p=part: w(reference, p), 2)
            theirs = seconds / (size * len(part)) * 1e6
            figure = f"{name}: a row, {'alone' if size == 1 else f'{size} together'}"
            found.append(row(figure, us, "us", (peer, theirs), goal))
    return found


def size_rows(watches: Watches) -> list[dict[str, Any]]:
    """Bytes of one device-hour, of wearers like the reference and of all others."""
    rng = np.random.default_rng(2)
    like = watches.train.only(rng.integers(0, len(watches.train.raw), ROWS))
    hours = {"drawn from the reference": like}
    hours |= {f"subject {s}, {side}": watches.of(s, side) for s in FLEET for side in SIDES}
    turned = watches.of(7, "left")
    upside = turned.raw.copy()
    upside[:, :, 1:3] *= -1
    hours["subject 7 with two inputs turned"] = turned._replace(raw=upside)
    found = []
    payloads: dict[str, bytes] = {}
    for name, data in hours.items():
        device = Device(watches.reference, data.raw.shape[1])
        for batch in batches(data, 60):
            device.monitor.answered(device.role(), device.release, batch, NOW_MS)
        (window,) = device.monitor.close(NOW_MS + HOUR_MS)
        payload = payloads[name] = device.payload(window)
        counts = np.frombuffer(window.counts, "<i8")
        plain = msgspec.msgpack.encode(counts.astype("<u4").tobytes())
        figure = f"device-hour, {name}"
        found.append(row(figure, len(payload), "B", ("msgpack u32", len(plain)), SIZE_GOAL))
        squeezed = len(zlib.compress(plain, 9))
        found.append(row(figure, len(payload), "B", ("zlib of it", squeezed), SIZE_GOAL))
        packed = packing.pack(counts, device.schema.sizes, ROWS)
        found.append(row(f"  of it channel counts, {name}", len(packed), "B"))
    return found


def more_rows(watches: Watches) -> list[dict[str, Any]]:
    """What slices, a shadow, labels and noise add."""
    data = watches.of(7, "left")
    samples = data.raw.shape[1]
    found = []
    labelled = Device(watches.reference, samples)
    for batch in batches(data, 60):
        labelled.monitor.answered(labelled.role(), labelled.release, batch, NOW_MS)
    (window,) = labelled.monitor.close(NOW_MS + HOUR_MS)
    confidence = Layout(watches.reference).confidence_bins(data.scores.max(axis=1))
    bins = labelled.layout.confidence_size
    right = np.bincount(confidence[: 4 * ROWS // 5], minlength=bins).astype("<i8").tobytes()
    wrong = np.bincount(confidence[4 * ROWS // 5 :], minlength=bins).astype("<i8").tobytes()
    with_labels = msgspec.structs.replace(window, right=right, wrong=wrong)
    found.append(row("with every label", len(labelled.payload(with_labels)), "B"))
    split = Device(watches.reference, samples)
    for place, batch in enumerate(batches(data, 60)):
        own = msgspec.structs.replace(batch, slices={"side": SIDES[place % 2]})
        split.monitor.answered(split.role(), split.release, own, NOW_MS)
    found.append(row("split over two slices", sum(map(len, split.payloads())), "B"))
    paired = Device(watches.reference, samples)
    for batch in batches(data, 60):
        role = paired.role("candidate", "r-0123456789ab")
        paired.monitor.answered(role, paired.release, batch, NOW_MS)
        shadow = paired.role("shadow", "r-0123456789ab")
        other = paired.schema.release
        paired.monitor.shadowed(shadow, paired.release, other, batch, 55)
    found.append(row("candidate and its shadow", sum(map(len, paired.payloads())), "B"))
    seen = Device(watches.embedded, samples)
    whole = watches.embedding(data)
    for place, batch in enumerate(batches(data, 60)):
        own = msgspec.structs.replace(batch, embedding=whole[60 * place : 60 * (place + 1)])
        seen.monitor.answered(seen.role(), seen.release, own, NOW_MS)
    found.append(row(f"with {DIRECTIONS} directions of an embedding", len(seen.payloads()[0]), "B"))
    noisy = Device(watches.reference, samples, epsilon=EPSILON)
    for batch in batches(data, 60):
        noisy.monitor.answered(noisy.role(), noisy.release, batch, NOW_MS)
    found.append(row(f"with noise, epsilon {EPSILON:g}", len(noisy.payloads()[0]), "B"))
    ratio = noisy.schema.channel_ratios[-1]
    found.append(
        row("  standard deviation of a count's noise", noise.variance(ratio) ** 0.5, "rows")
    )
    schema = labelled.schema
    pack_us = fastest(lambda: windows.pack(window, schema), 20) * 1e6
    found.append(row("packing one window", pack_us, "us"))
    packed = windows.pack(window, schema)
    head = windows.head(packed)
    unpack_us = fastest(lambda: windows.unpack(head, schema, "watch-0001"), 20) * 1e6
    found.append(row("unpacking it on the server", unpack_us, "us"))
    return found


def row(
    figure: str,
    value: float,
    unit: str,
    peer: tuple[str, float] | None = None,
    goal: float | None = None,
) -> dict[str, Any]:
    """One line of the report; every goal is a most."""
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "peer": None if peer is None else {"name": peer[0], "value": peer[1]},
        "ratio": None if peer is None else value / peer[1],
        "goal": None if goal is None else f"<= {goal:g}",
        "met": None if goal is None else value <= goal,
    }


def report(repeats: int) -> None:
    watches = Watches(FEATURES)
    lines = []
    for name, samples, inputs in (
        ("32 features of 32 numbers", 1, 32),
        ("32 features of 6 x 20 samples", 20, 6),
        ("32 features of 6 x 200 samples", 200, 6),
    ):
        lines += speed_rows(name, *drawn(samples, inputs), repeats)
    lines += size_rows(watches) + more_rows(watches)
    table = Table("figure", "value", "peer", "ratio", "goal", title="statistics")
    for line in lines:
        peer = line["peer"]
        table.add_row(
            line["figure"],
            f"{line['value']:,.2f} {line['unit']}",
            "" if peer is None else f"{peer['name']}: {peer['value']:,.1f}",
            "" if line["ratio"] is None else f"{line['ratio']:.3f}",
            "" if line["goal"] is None else f"{line['goal']} {'met' if line['met'] else 'not met'}",
        )
    Console(width=140).print(table)
    conditions = {
        "rows": ROWS,
        "channels": f"6 inputs, {FEATURES} features, 2 scores",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "statistics", "conditions": conditions, "rows": lines}
    (OUT / "statistics.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="the fastest of so many runs counts")
    report(parser.parse_args().repeats)


if __name__ == "__main__":
    main()
