"""What one window's features cost, beside tsflex, pandas and river on the same recordings.

All sides compute the same 42 features of watch_activity: seven statistics of six channels over 200
samples. Each is used as its documentation shows; figures are of one core.
"""

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table
from river import stats, utils
from tsflex.features import FeatureCollection, MultipleFeatureDescriptors

from converters import recipe_code
from edge_core.features import definition as definitions
from edge_core.features.windowing import FeatureStream

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
WATCH = ROOT / "firmware_bundles" / "watch_activity"
GOAL = 1 / 20
RIVER_SAMPLES = 3000
"""River is fed one sample at a time; more would only take longer."""

Float32 = npt.NDArray[np.float32]
Definition = definitions.FeatureDefinition


def recording(samples: int) -> Float32:
    """Recordings one after the other, float32 [samples, 6]."""
    from converters import recipe

    chosen = recipe.load(WATCH, None)
    offered = recipe_code.recordings(WATCH, chosen.entry)(chosen.settings)
    joined = np.concatenate([entry.samples for entry in offered])
    return np.resize(joined, (samples, joined.shape[1]))


def best(work: Callable[[], int], repeats: int) -> float:
    """Microseconds per window of the fastest of several runs."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        windows = work()
        found.append((time.perf_counter() - started) * 1e6 / windows)
    return min(found)


def times_of(samples: Float32, definition: Definition) -> npt.NDArray[np.int64]:
    """Evenly spaced microseconds."""
    return np.rint(np.arange(len(samples)) * 1e6 / definition.window.rate_hz).astype(np.int64)


def whole(samples: Float32, definition: Definition) -> int:
    """Everything at once, as training does."""
    return len(FeatureStream(definition).push(times_of(samples, definition), samples).features)


def streamed(samples: Float32, definition: Definition) -> int:
    """One hop of samples at a time, as a device does; each push completes one window."""
    stream, times, hop = (
        FeatureStream(definition),
        times_of(samples, definition),
        definition.window.hop,
    )
    return sum(
        len(stream.push(times[start : start + hop], samples[start : start + hop]).features)
        for start in range(0, len(samples), hop)
    )


def energy(values: npt.NDArray[Any]) -> float:
    """Mean square."""
    return float(np.mean(np.square(values)))


def crossings(values: npt.NDArray[Any]) -> int:
    """Neighbours of which one is below zero."""
    negative = values < 0
    return int(np.count_nonzero(negative[1:] != negative[:-1]))


def with_tsflex(samples: Float32, definition: Definition) -> int:
    """A feature collection of numpy functions, in one process."""
    names, window = definition.input_names, definition.window
    frame = pd.DataFrame(samples, columns=names)
    collection = FeatureCollection(
        MultipleFeatureDescriptors(
            functions=[np.mean, np.std, np.min, np.max, np.ptp, energy, crossings],
            series_names=names,
            windows=window.samples,
            strides=window.hop,
        )
    )
    return len(collection.calculate(frame, return_df=True, n_jobs=1))


def with_pandas(samples: Float32, definition: Definition) -> int:
    """Rolling windows of a frame."""
    size, hop = definition.window.samples, definition.window.hop
    frame = pd.DataFrame(samples, columns=definition.input_names)
    rolling = frame.rolling(size, step=hop)
    below = (frame < 0).astype(np.int8)
    low, high = rolling.min(), rolling.max()
    parts = [
        rolling.mean(),
        rolling.std(ddof=0),
        low,
        high,
        high - low,
        frame.pow(2).rolling(size, step=hop).mean(),
        below.diff().abs().rolling(size - 1, step=hop).sum(),
    ]
    return len(pd.concat(parts, axis=1).iloc[size // hop :])


def with_river(samples: Float32, definition: Definition) -> int:
    """Rolling statistics, updated sample by sample and read once a hop."""
    size, hop, names = definition.window.samples, definition.window.hop, definition.input_names
    held = [
        (
            utils.Rolling(stats.Mean(), size),
            utils.Rolling(stats.Var(ddof=0), size),
            stats.RollingMin(size),
            stats.RollingMax(size),
            utils.Rolling(stats.Mean(), size),
            utils.Rolling(stats.Sum(), size - 1),
        )
        for _ in names
    ]
    before, windows = [False] * len(names), 0
    for count, row in enumerate(samples[:RIVER_SAMPLES].tolist(), start=1):
        for channel, value in enumerate(row):
            mean, variance, low, high, square, crossed = held[channel]
            for one in (mean, variance, low, high):
                one.update(value)
            square.update(value * value)
            crossed.update((value < 0) != before[channel])
            before[channel] = value < 0
        if count >= size and (count - size) % hop == 0:
            windows += 1
            for mean, variance, low, high, square, crossed in held:
                _ = (
                    mean.get(),
                    variance.get() ** 0.5,
                    low.get(),
                    high.get(),
                    high.get() - low.get(),
                    square.get(),
                    crossed.get(),
                )
    return windows


def skew(samples: Float32, definition: Definition) -> tuple[float, float]:
    """Share of float32 means that a running sum gives other bits than a batch; and ours."""
    size, hop = definition.window.samples, definition.window.hop
    windows = np.lib.stride_tricks.sliding_window_view(samples, size, axis=0)[::hop]
    batch = windows.mean(axis=2, dtype=np.float32)
    total, running = np.zeros(samples.shape[1], np.float32), []
    for row in range(len(samples)):
        total = total + samples[row]
        if row >= size:
            total = total - samples[row - size]
        if row >= size - 1 and (row - size + 1) % hop == 0:
            running.append(total / np.float32(size))
    naive = float(np.mean(np.array(running) != batch))
    times = times_of(samples, definition)
    once = FeatureStream(definition).push(times, samples).features
    stream = FeatureStream(definition)
    pushed = [
        stream.push(times[start : start + 7], samples[start : start + 7]).features
        for start in range(0, len(samples), 7)
    ]
    return naive, float(np.mean(np.concatenate(pushed).view(np.uint32) != once.view(np.uint32)))


def line(
    figure: str, value: float, peer: str = "", other: float | None = None, goal: float | None = None
) -> dict[str, Any]:
    """One row of the report; microseconds per window where nothing else is said."""
    ratio = None if other is None else value / other
    return {
        "figure": figure,
        "value": value,
        "peer": None if other is None else {"name": peer, "value": other},
        "ratio": ratio,
        "goal": None if goal is None else f"<= {goal:g}",
        "met": None if goal is None or ratio is None else ratio <= goal,
    }


def measure(samples: Float32, definition: Definition, repeats: int) -> list[dict[str, Any]]:
    """All sides on the same samples, in one process."""
    batch = best(lambda: whole(samples, definition), repeats)
    stream = best(lambda: streamed(samples, definition), repeats)
    few = samples[: 100 * definition.window.hop]
    one = samples[: definition.window.samples + 1]  # tsflex wants to see where a window ends
    tsflex = best(lambda: with_tsflex(few, definition), repeats)
    tsflex_one = best(lambda: with_tsflex(one, definition), 4 * repeats)
    pandas = best(lambda: with_pandas(samples, definition), repeats)
    river = best(lambda: with_river(samples, definition), 1)
    naive, ours = skew(few, definition)
    return [
        line("all windows at once", batch, "tsflex", tsflex, GOAL),
        line("all windows at once", batch, "pandas", pandas),
        line("one window at a time", stream, "tsflex", tsflex_one, GOAL),
        line("one window at a time", stream, "river", river),
        line("share of values that streaming changes", ours, "float32 running sum", naive),
    ]


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    definition = definitions.parse((WATCH / "features.json").read_bytes())
    samples = recording((options.windows + 1) * definition.window.hop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure(samples, definition, options.repeats)
    table = Table("figure", "here", "peer", "ratio", "goal", title="features: us per window")
    for found in rows:
        peer = found["peer"]
        table.add_row(
            found["figure"],
            f"{found['value']:,.1f}",
            f"{peer['name']}: {peer['value']:,.2f}",
            f"{found['ratio']:.4f}",
            f"{found['goal']} {'met' if found['met'] else 'not met'}" if found["goal"] else "",
        )
    Console().print(table)
    conditions = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "windows": options.windows,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "features", "conditions": conditions, "rows": rows}
    (OUT / "features.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
