"""Places and answers by onnxruntime's WebGPU provider: imports numpy and onnxruntime only.

``python webgpu.py compile MODEL FILE TOLD OPTION...`` or ``run MODEL FEEDS ANSWERS OPTION...``.
Where operators run is read from a profile of one run: the session tells it of few.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PROVIDER = "WebGpuExecutionProvider"
ERRORS_ONLY = 3
LARGEST_BATCH = 64
SUFFIX = "_kernel_time"


def main() -> None:
    """Compile or run."""
    what, model, first, second = sys.argv[1:5]
    if what == "compile":
        shutil.copy(model, first)
        operators = placed(model, Path(first).parent)
        Path(second).write_text(json.dumps({"operators": operators}))
    else:
        answer(model, first, second)


def placed(model: str, folder: Path) -> list[dict[str, str]]:
    """Operators by the provider that ran them on one row of zeros."""
    made = session(model, str(folder / "profile"))
    zeros = {
        entry.name: np.zeros(
            [size if isinstance(size, int) else 1 for size in entry.shape], DTYPES[entry.type]
        )
        for entry in made.get_inputs()
    }
    made.run(None, zeros)
    events = json.loads(Path(made.end_profiling()).read_text())
    return [
        {
            "place": event["args"]["provider"],
            "kind": event["args"]["op_name"],
            "name": event["name"].removesuffix(SUFFIX),
        }
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)
    ]


def answer(model: str, feeds: str, answers: str) -> None:
    """Answer in batches."""
    made = session(model)
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


def session(model: str, profile: str = "") -> Any:
    """A session on the device, with a profile of it where one is wanted."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    made = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    if PROVIDER not in made.get_providers():  # it falls back to the processor by itself
        sys.exit("there is no Vulkan device that WebGPU takes")
    return made


DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


if __name__ == "__main__":
    main()
