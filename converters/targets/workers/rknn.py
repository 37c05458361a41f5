"""Compiles for and simulates Rockchip's NPUs: imports numpy and rknn-toolkit2 only.

``python rknn.py compile MODEL FILE TOLD OPTION...`` or ``run MODEL FEEDS ANSWERS OPTION...``; the
option is ``platform=rk3588``. The toolkit tells where operators run and what they cost only in what
it prints while it builds; :func:`told` reads that table and the sums below it.
"""

import ctypes
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rknn.api import RKNN

KIB = 1024.0
_OPERATOR = re.compile(
    r"\] \d+ +(\w+) +(\w+) +(NPU|CPU|GPU) +\S+ +\S+ +\d+/\d+/(\d+) +\d+ +\w+:(.*?) *$", re.MULTILINE
)
"""Kind, type, place, cycles, name."""
_MEMORY = re.compile(r"Total (Internal|Weight) Memory Size: ([\d.]+)KB")
_FIGURE = {"Internal": "arena_bytes", "Weight": "weight_bytes"}
_PART = re.compile(r"#\d+$")
"""What is appended to the name of a node that became several."""
_PRODUCTS = ("Conv", "MatMul", "Gemm")
_NOT = "DataConvert"
_ENDS = ("InputOperator", "OutputOperator")


def main() -> None:
    """Compile or run."""
    what, model, first, second = sys.argv[1:5]
    options = dict(option.split("=", 1) for option in sys.argv[5:])
    source = Path(model).with_suffix(".onnx")
    shutil.copy(model, source)
    os.chdir(source.parent)  # the toolkit leaves files where it runs
    with tempfile.TemporaryFile() as log:
        made = built(source, options["platform"], log)
        log.seek(0)
        said = log.read().decode(errors="replace")
    if what == "compile":
        out = Path(first).with_suffix(".rknn")
        check(made.export_rknn(str(out)), "export")
        out.replace(first)
        Path(second).write_text(json.dumps(told(said)))
    else:
        answer(made, first, second)


def told(said: str) -> dict[str, Any]:
    """Places and figures from what the toolkit printed.

    Its own ends of the graph are no operators of the model. A product in float has a place of its
    own: the file is int8, so it should have none.
    """
    found = [entry for entry in _OPERATOR.findall(said) if entry[0] not in _ENDS]
    figures = {_FIGURE[kind]: float(size) * KIB for kind, size in _MEMORY.findall(said)}
    figures["cycles"] = float(sum(int(cycles) for _, _, _, cycles, _ in found))
    operators = []
    for kind, number, place, _, name in found:
        floats = place == "NPU" and product(kind) and number.startswith("FLOAT")
        where = f"{place} in float" if floats else place
        node = _PART.sub("", name)
        operators.append({"place": where, "kind": kind, "name": node, "in_float": floats})
    return {"operators": operators, "figures": figures if found else {}}


def product(kind: str) -> bool:
    """Whether an operator multiplies by weights, or rows by rows; it may have others fused."""
    return _NOT not in kind and any(text in kind for text in _PRODUCTS)


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


def built(source: Path, platform: str, log: Any) -> Any:
    """The model, which is quantised already, in the toolkit; what it prints goes to a log."""
    made = RKNN(verbose=True)
    kept = os.dup(1), os.dup(2)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        check(made.config(target_platform=platform) or 0, "configuration")
        check(made.load_onnx(model=str(source)), "reading")
        check(made.build(do_quantization=False), "building")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)  # the toolkit's C++ side has a buffer of its own
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
    return made


def check(code: int, what: str) -> None:
    """The toolkit tells of failure by a number."""
    if code:
        sys.exit(f"{what} failed with {code}")


if __name__ == "__main__":
    main()
