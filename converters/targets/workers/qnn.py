"""Compiles for and simulates Qualcomm's HTP: imports numpy and onnxruntime-qnn only.

``python qnn.py compile MODEL FILE TOLD OPTION...`` or ``run MODEL FEEDS ANSWERS OPTION...``;
options are ``arch=73`` and ``soc=43``. What runs may be the compiled file: the simulator takes it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn

PROVIDER = onnxruntime_qnn.get_ep_name()
ERRORS_ONLY = 4
SHOWN = 3
ENDS = ("QuantizeLinear", "DequantizeLinear")


def main() -> None:
    """Compile or run."""
    what, model, first, second = sys.argv[1:5]
    options = dict(option.split("=", 1) for option in sys.argv[5:])
    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    if what == "compile":
        compile_to(model, first, second, options)
    else:
        answer(model, first, second, options)


def compile_to(model: str, out: str, told: str, options: dict[str, str]) -> None:
    """Write the context binary inside an ONNX file, and where each operator went.

    The provider writes the paths that it is given into the file: they hold no folder, so that equal
    models give equal bytes.
    """
    context = Path(out).with_suffix(".onnx")  # the provider takes other paths for folders
    os.chdir(context.parent)
    try:
        made = session(Path(model).name, options, context=context.name)
    except Exception as error:  # its error classes have no public base
        sys.exit(reason(model, options, str(error)))
    context.replace(out)
    operators = [
        {"place": "HTP" if place == PROVIDER else place, "kind": kind, "name": name}
        for place, kind, name in placed(made)
    ]
    Path(told).write_text(json.dumps({"operators": operators}))


def reason(model: str, options: dict[str, str], error: str) -> str:
    """Name the operators that the HTP does not take; where there are none, what it said."""
    try:
        made = session(model, options, fallback=True)
    except Exception:
        return " ".join(error.split())
    found = [(kind, name) for place, kind, name in placed(made) if place != PROVIDER]
    # Where the graph is cut, its ends stay on the processor, too.
    left = [f"{kind} {name}" for kind, name in found if kind not in ENDS]
    if not left:
        return " ".join(error.split())
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"the HTP does not take {', '.join(left[:SHOWN])}{more}"


def placed(made: Any) -> list[tuple[str, str, str]]:
    """Provider, kind and name of each operator."""
    return [
        (part.ep_name, node.op_type, node.name)
        for part in made.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def answer(model: str, feeds: str, answers: str, options: dict[str, str]) -> None:
    """Answer row by row: the graph has a batch of one."""
    made = session(model, options)
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


def session(
    model: str, options: dict[str, str], *, context: str = "", fallback: bool = False
) -> Any:
    """A session on the simulated HTP; nothing may fall back to the processor unless asked."""
    wanted = onnxruntime.SessionOptions()
    wanted.log_severity_level = ERRORS_ONLY
    if not fallback:
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
