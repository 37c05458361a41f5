"""What a build costs: time, memory and the size of what it makes, for eight targets.

The peer is the same work as people glue it together: one target after the other, each from the
float model on, with nothing kept. Training is left out on both sides.
"""

import argparse
import json
import os
import platform
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from converters import building
from converters.building import BuildRequest

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
RECIPE = ROOT / "firmware_bundles" / "watch_activity"
TRAIN = ("data", "features", "train")
GOAL_SECONDS = 60.0
GOAL_AGAIN_SECONDS = 5.0
GOAL_BYTES = 3e9
GOAL_WEIGHTS = 0.35


class Clock:
    """A report that adds up the seconds outside of training."""

    def __init__(self) -> None:
        self.training = 0.0

    def started(self, name: str) -> None:
        """See :class:`converters.pipeline.Report`."""

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        """See :class:`converters.pipeline.Report`."""
        if name in TRAIN:
            self.training += seconds

    def failed(self, name: str) -> None:
        """See :class:`converters.pipeline.Report`."""


class Memory:
    """Largest resident set of this process and all its children, sampled."""

    def __init__(self) -> None:
        self.peak = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._end.wait(0.05):
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)


def build(release: str, targets: tuple[str, ...], cache: Path) -> tuple[float, Path]:
    """Seconds outside of training, and where the bundle stands."""
    out = OUT / "conversion-bundle"
    shutil.rmtree(out, ignore_errors=True)
    clock, started = Clock(), time.perf_counter()
    request = BuildRequest(recipe=RECIPE, out=out, release=release, targets=targets, cache=cache)
    building.build(request, clock)
    return time.perf_counter() - started - clock.training, out


def one_by_one(release: str, targets: tuple[str, ...], cache: Path) -> float:
    """The same targets in turn; only training is kept between them."""
    trained = OUT / "conversion-trained"
    total = 0.0
    for target in targets:
        shutil.rmtree(trained, ignore_errors=True)
        shutil.copytree(cache, trained)
        total += build(release, (target,), trained)[0]
    shutil.rmtree(trained, ignore_errors=True)
    return total


def weights_ratio(model: Path) -> float:
    """Bytes of quantised weights, biases and their scales over those of the same in float32."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model)).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    held = single = 0
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            held += sum(constants[name].nbytes for name in node.input)
            single += 4 * constants[node.input[0]].size
    return held / single


def shown(value: float, unit: str) -> str:
    """A figure as people read it."""
    return f"{value / 1e9:.2f} GB" if unit == "bytes" else f"{value:.2f} {unit}"


def row(
    figure: str, value: float, unit: str, goal: float, name: str = "", peer: float | None = None
) -> dict[str, Any]:
    """One line of the report."""
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "peer": None if peer is None else {"name": name, "value": peer},
        "ratio": None if peer is None else value / peer,
        "goal": f"<= {goal:g}",
        "met": value <= goal,
    }


def measure(release: str, targets: tuple[str, ...]) -> list[dict[str, Any]]:
    """Build once, again, and one by one."""
    cache, trained = OUT / "conversion-cache", OUT / "conversion-first"
    for folder in (cache, trained):
        shutil.rmtree(folder, ignore_errors=True)
    with Memory() as memory:
        first, bundle = build(release, targets, cache)
    ratio = weights_ratio(bundle / "variants" / "cpu-x86_64-ort" / "model.onnx")
    again, _ = build(release, targets, cache)
    build(release, targets[:1], trained)
    alone = one_by_one(release, targets, _only_training(trained))
    return [
        row(
            f"{release}: {len(targets)} targets, after training",
            first,
            "s",
            GOAL_SECONDS,
            "one by one",
            alone,
        ),
        row(f"{release}: built again", again, "s", GOAL_AGAIN_SECONDS, "first build", first),
        row(f"{release}: resident memory", memory.peak, "bytes", GOAL_BYTES),
        row(f"{release}: int8 weights over fp32", ratio, "", GOAL_WEIGHTS),
    ]


def _only_training(cache: Path) -> Path:
    """The cache's two oldest entries: what training made, and the float32 answers."""
    entries = sorted(
        (path for path in cache.iterdir() if path.is_file()), key=lambda p: p.stat().st_ctime_ns
    )
    for path in entries[2:]:
        path.unlink()
    return cache


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", action="append", help="of watch_activity; may be repeated")
    options = parser.parse_args()
    from converters import recipe

    rows = []
    for release in options.release or ["1.1.0", "2.0.0"]:
        targets = tuple(recipe.load(RECIPE, release).targets)
        print(f"building watch_activity {release} for {len(targets)} targets ...", flush=True)
        rows += measure(release, targets)
    table = Table("figure", "value", "peer", "ratio", "goal", title="conversion")
    for line in rows:
        peer = line["peer"]
        table.add_row(
            line["figure"],
            shown(line["value"], line["unit"]),
            "" if peer is None else f"{peer['name']}: {peer['value']:,.1f}",
            "" if line["ratio"] is None else f"{line['ratio']:.3f}",
            f"{line['goal']} {'met' if line['met'] else 'not met'}",
        )
    Console().print(table)
    conditions = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "conversion", "conditions": conditions, "rows": rows}
    (OUT / "conversion.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
