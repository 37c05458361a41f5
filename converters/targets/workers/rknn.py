"""Compiles for and simulates Rockchip's NPUs: imports numpy and rknn-toolkit2 only.

``python rknn.py compile MODEL FILE PLACEMENT OPTION...`` or ``run MODEL FEEDS ANSWERS OPTION...``;
the option is ``platform=rk3588``.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Compile or run."""
    # The toolkit finds itself by its name, which is this file's, too.
    sys.path = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    what, model, first, second = sys.argv[1:5]
    options = dict(option.split("=", 1) for option in sys.argv[5:])
    source = Path(model).with_suffix(".onnx")
    shutil.copy(model, source)
    made = built(source, options["platform"])
    if what == "compile":
        out = Path(first).with_suffix(".rknn")
        check(made.export_rknn(str(out)), "export")
        out.replace(first)
        # The toolkit does not tell which operators it leaves to the processor.
        Path(second).write_text(json.dumps({}))
    else:
        answer(made, first, second)


def answer(made: Any, feeds: str, answers: str) -> None:
    """Answer row by row on the simulator."""
    check(made.init_runtime(), "start of the simulator")
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    rows = []
    for row in range(len(given[0])):
        one = [array[row : row + 1] for array in given]
        rows.append(made.inference(inputs=one, data_format=["nchw"] * len(one)))
    found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    named: dict[str, Any] = {str(place): array for place, array in enumerate(found)}
    np.savez(answers, **named)


def built(source: Path, platform: str) -> Any:
    """The model in the toolkit; it is quantised already."""
    from rknn.api import RKNN

    made = RKNN(verbose=False)
    check(made.config(target_platform=platform) or 0, "configuration")
    check(made.load_onnx(model=str(source)), "reading")
    check(made.build(do_quantization=False), "building")
    return made


def check(code: int, what: str) -> None:
    """The toolkit tells of failure by a number."""
    if code:
        sys.exit(f"rknn-toolkit2: {what} failed with {code}")


if __name__ == "__main__":
    main()
