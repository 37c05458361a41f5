"""Runs a TFLite file on LiteRT's GPU delegate: imports numpy and ai-edge-litert only.

``python litert_gpu.py compile MODEL TOLD`` or ``run MODEL FEEDS ANSWERS``; arrays are named by
their place. In a process of its own: drivers may end it. LiteRT tells the device on standard error.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import Options


def main() -> None:
    """Compile or run."""
    what, model, *files = sys.argv[1:]
    made = compiled(model)
    if what == "compile":
        Path(files[0]).write_text(json.dumps({"whole": bool(made.is_fully_accelerated())}))
    else:
        answer(made, *files)


def compiled(model: str) -> Any:
    """The model on the GPU, what it cannot do on the processor."""
    wanted = HardwareAccelerator.GPU | HardwareAccelerator.CPU
    try:
        return CompiledModel.from_file(model, options=Options(hardware_accelerators=wanted))
    except RuntimeError as error:
        sys.stderr.write(f"\nthe GPU delegate refuses the model: {' '.join(str(error).split())}\n")
        sys.stderr.flush()
        os._exit(1)  # LiteRT would have the last word otherwise


def answer(made: Any, feeds: str, answers: str) -> None:
    """Answer row by row."""
    key, signature = next(iter(made.get_signature_list().items()))
    details = made.get_output_tensor_details(key)
    ends = [(details[name]["shape"], details[name]["dtype"]) for name in signature["outputs"]]
    inputs, outputs = made.create_input_buffers(0), made.create_output_buffers(0)
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    rows = []
    for row in range(len(given[0])):
        for buffer, array in zip(inputs, given, strict=True):
            buffer.write(np.ascontiguousarray(array[row : row + 1]))
        made.run_by_index(0, inputs, outputs)
        rows.append(
            [
                np.array(buffer.read(math.prod(shape), np.dtype(dtype).type)).reshape(shape)
                for buffer, (shape, dtype) in zip(outputs, ends, strict=True)
            ]
        )
    found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    named: dict[str, Any] = {str(place): array for place, array in enumerate(found)}
    np.savez(answers, **named)


if __name__ == "__main__":
    main()
