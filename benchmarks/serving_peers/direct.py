"""The model without a server: rows per second of direct calls, in a process of their own.

    python direct.py BUNDLE TARGET SECONDS

A process of their own, since libraries that two processes share count half in each one's memory.
Prints one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  # the repository's root has to be on the path first
import onnxruntime  # noqa: E402

from edge_agent.allocator import keep_freed_memory  # noqa: E402
from edge_agent.serving.release import LoadedRelease  # noqa: E402
from edge_core.bundle import golden as goldens  # noqa: E402

BATCH = 64


def rate(call: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows per second of a call, best of three parts, after a warm-up."""
    rates = []
    for part in (0.2, seconds / 3, seconds / 3, seconds / 3):
        calls, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < part:
            call()
            calls += 1
        rates.append(calls * rows / elapsed)
    return max(rates[1:])


def main() -> None:
    keep_freed_memory()  # as the agent does: features alone would be two to four times slower
    bundle, target, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    release = LoadedRelease.open(bundle, target)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        bundle / release.variant.path, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    golden, evaluator = release.golden(), release.evaluator
    raw = goldens.samples(release.definition, golden.raw)
    windows = np.resize(raw, (BATCH, *raw.shape[1:])).astype(np.float32)
    features = np.resize(golden.features, (BATCH, golden.features.shape[1]))

    def run(given: goldens.Float32) -> object:
        return session.run(None, {name: given})

    def whole(given: goldens.Float32) -> object:
        return run(evaluator.evaluate(evaluator.quantise(given)))

    found = {
        "run, one row": rate(lambda: run(features[:1]), 1, seconds),
        "run, batch": rate(lambda: run(features), BATCH, seconds),
        "whole, one row": rate(lambda: whole(windows[:1]), 1, seconds),
        "whole, batch": rate(lambda: whole(windows), BATCH, seconds),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
