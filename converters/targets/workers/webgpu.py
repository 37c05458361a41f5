"""Places and answers by onnxruntime's WebGPU provider: imports numpy and onnxruntime only.

``python webgpu.py compile MODEL FILE PLACEMENT OPTION...`` or ``run MODEL FEEDS ANSWERS
OPTION...``. Where there is no device, nothing is known of placement.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PROVIDER = "WebGpuExecutionProvider"
ERRORS_ONLY = 4
LARGEST_BATCH = 64


def main() -> None:
    """Compile or run."""
    what, model, first, second = sys.argv[1:5]
    if what == "compile":
        shutil.copy(model, first)
        Path(second).write_text(json.dumps(placed(model)))
    else:
        answer(model, first, second)


def placed(model: str) -> dict[str, int]:
    """Operators by provider."""
    made = session(model)
    if made is None:
        return {}
    counted: Counter[str] = Counter()
    for part in made.get_provider_graph_assignment_info():
        counted.update(f"{part.ep_name}/{node.op_type}" for node in part.get_nodes())
    return dict(sorted(counted.items()))


def answer(model: str, feeds: str, answers: str) -> None:
    """Answer in batches."""
    made = session(model)
    if made is None:
        sys.exit("no WebGPU device: install a Vulkan driver")
    names = [entry.name for entry in made.get_inputs()]
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    parts = []
    for start in range(0, len(given[0]), LARGEST_BATCH):
        some = [array[start : start + LARGEST_BATCH] for array in given]
        parts.append(made.run(None, dict(zip(names, some, strict=True))))
    found = [np.concatenate(part) for part in zip(*parts, strict=True)]
    named: dict[str, Any] = {str(place): array for place, array in enumerate(found)}
    np.savez(answers, **named)


def session(model: str) -> Any:
    """A session on the GPU; none where there is no device."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    made = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    return made if PROVIDER in made.get_providers() else None


if __name__ == "__main__":
    main()
