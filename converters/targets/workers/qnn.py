"""Compiles for and simulates Qualcomm's HTP: imports numpy and onnxruntime-qnn only.

``python qnn.py compile MODEL FILE PLACEMENT OPTION...`` or ``run MODEL FEEDS ANSWERS OPTION...``;
options are ``arch=73`` and ``soc=43``.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn

PROVIDER = "qnn"
ERRORS_ONLY = 4


def main() -> None:
    """Compile or run."""
    what, model, first, second = sys.argv[1:5]
    options = dict(option.split("=", 1) for option in sys.argv[5:])
    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    if what == "compile":
        compile_to(model, first, second, options)
    else:
        answer(model, first, second, options)


def compile_to(model: str, out: str, placement: str, options: dict[str, str]) -> None:
    """Write the context binary inside an ONNX file, and where each operator went."""
    context = Path(out).with_suffix(".onnx")  # the provider takes other paths for folders
    made = session(model, options, str(context))
    context.replace(out)
    counted: Counter[str] = Counter()
    for part in made.get_provider_graph_assignment_info():
        place = "HTP" if part.ep_name == PROVIDER else part.ep_name
        counted.update(f"{place}/{node.op_type}" for node in part.get_nodes())
    Path(placement).write_text(json.dumps(dict(sorted(counted.items()))))


def answer(model: str, feeds: str, answers: str, options: dict[str, str]) -> None:
    """Answer row by row: the graph has a batch of one."""
    made = session(model, options, "")
    names = [entry.name for entry in made.get_inputs()]
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    rows = []
    for row in range(len(given[0])):
        one = {n: a[row : row + 1] for n, a in zip(names, given, strict=True)}
        rows.append(made.run(None, one))
    found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    named: dict[str, Any] = {str(place): array for place, array in enumerate(found)}
    np.savez(answers, **named)


def session(model: str, options: dict[str, str], context: str) -> Any:
    """A session on the simulated HTP; nothing may fall back to the processor."""
    wanted = onnxruntime.SessionOptions()
    wanted.log_severity_level = ERRORS_ONLY
    wanted.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    wanted.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if context:
        wanted.add_session_config_entry("ep.context_enable", "1")
        wanted.add_session_config_entry("ep.context_file_path", context)
        wanted.add_session_config_entry("ep.context_embed_mode", "1")
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == PROVIDER]
    htp = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "htp_arch": options["arch"]}
    wanted.add_provider_for_devices(devices[:1], htp | {"soc_model": options["soc"]})
    return onnxruntime.InferenceSession(model, wanted)


if __name__ == "__main__":
    main()
