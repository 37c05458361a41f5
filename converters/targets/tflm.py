"""Microcontrollers through TensorFlow Lite Micro."""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import int8_io, litert, tflite_graph
from converters.targets.by_place import load_places, save_places
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Array, Feeds
from edge_core.errors import Unavailable, quoted

PACKAGE = "tflite-micro"
INSTALL = "pip install tflite-micro"
WORKER = Path(__file__).parent / "workers" / "micro.py"
LARGEST_ARENA = 64 * 1024 * 1024
"""More than any microcontroller has, so that a model too large for one still gets its figure."""
SECONDS = 300.0
PLACE = "TFLM"
_NO_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_FAILED = re.compile(r"Node (\w+) \(number \d+\w*\) failed")
_ALLOCATIONS = re.compile(r"^\[RecordingMicroAllocator\] (.*)$", re.MULTILINE)


class Adapter:
    """See :class:`converters.targets.target.Target`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        try:
            version = importlib.metadata.version(PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            missing = f"{PACKAGE} is missing: {INSTALL}"
            return Tool(compiles=False, runs=False, by="", missing=missing)
        return Tool(compiles=True, runs=True, by=f"{PACKAGE} {version} (reference kernels)")

    def compile(self, model: ModelFile) -> Compiled:
        """The file itself, after the interpreter took it and its arena was measured.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: the file is not int8 throughout, or an operator has no kernel.
            Unavailable: tflite-micro is not installed.
        """
        tool = self.tool()
        if not tool.compiles:
            raise Unavailable(tool.missing)
        check_int8(model)
        zeros = {s.name: np.zeros((1, *s.shape), s.dtype) for s in model.inputs}
        given = int8_io.Ends(model).given(zeros)
        _, said, shown = _worker(model, given, "smallest")
        allocations = "\n".join(_ALLOCATIONS.findall(said))
        report = {"arena_bytes": shown.strip(), "allocations": allocations}
        return Compiled(data=model.data, source=model, report=report)

    def placement(self, compiled: Compiled) -> Placement:
        """From the operators of the file: the interpreter has one kernel for each."""
        return litert.placed(compiled.source, compiled.data, PLACE)

    def estimate(self, compiled: Compiled) -> Estimate:
        """Arena that the interpreter needs, and flash for the file alone, without kernels.

        The arena was measured with pointers of 8 bytes; where they have 4 it needs less.
        """
        figures = {
            "arena_bytes": float(compiled.report["arena_bytes"]),
            "flash_bytes": float(len(compiled.data)),
        }
        return Estimate(figures=figures, by=f"{self.tool().by}, measured with 8-byte pointers")

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Row by row in the interpreter on this machine; no latency: it says nothing here."""
        tool = self.tool()
        if not tool.runs:
            return None
        ends = int8_io.Ends(compiled.source)
        answers, _, _ = _worker(compiled.source, ends.given(feeds))
        return Ran(outputs=ends.answered(answers), by=f"{tool.by} on a host", on_hardware=False)


def check_int8(model: ModelFile) -> None:
    """Refuse a file with float in it; deliberately mixed ones may have it inside.

    Raises:
        InvalidInput: the file is damaged.
        StageFailed: a tensor at the ends, or an operator, is float; it is named.
    """
    if model.format != "tflite":
        raise StageFailed(f"microcontrollers take tflite files, not {model.format}")
    ends = tflite_graph.ends(model.data)
    for end in (*ends.inputs, *ends.outputs):
        if end.type.startswith("FLOAT"):
            raise StageFailed(f"{end.name} is {end.dtype}; quantise inputs and outputs to int8")
    floats = [
        f"{entry.kind} ({entry.output})"
        for entry in tflite_graph.operators(model.data)
        if any(kind.startswith("FLOAT") for kind in (*entry.reads, *entry.writes))
    ]
    if floats and model.scheme != "mixed":
        more = f" and {len(floats) - 3} more" if len(floats) > 3 else ""
        raise StageFailed(
            f"operators stayed in float: {', '.join(floats[:3])}{more}; this target takes int8 only"
        )


def _worker(
    model: ModelFile, given: Sequence[Array], *options: str
) -> tuple[list[Array], str, str]:
    """Answers, and what was said on standard error and output.

    In a process of its own: what the interpreter says of a failure goes past Python, and a
    damaged file ends the process.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = [folder / name for name in ("model.tflite", "feeds.npz", "answers.npz")]
        files[0].write_bytes(model.data)
        save_places(files[1], given)
        command = [sys.executable, str(WORKER), *map(str, files), str(len(model.outputs))]
        try:
            done = subprocess.run(
                [*command, str(LARGEST_ARENA), *options],
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageFailed(f"{PACKAGE} took more than {SECONDS:g} s") from error
        said = done.stderr.decode(errors="replace")
        if done.returncode:
            raise _failure(done.returncode, said)
        return load_places(files[2]), said, done.stdout.decode()


def _failure(code: int, said: str) -> StageFailed:
    if operator := _NO_OPERATOR.search(said) or _FAILED.search(said):
        return StageFailed(
            f"{PACKAGE} cannot run operator {operator.group(1)}; replace that layer, or leave this "
            "target out"
        )
    lines = said.strip().splitlines() or ["it said nothing"]
    return StageFailed(f"{PACKAGE} ended with {code}: {quoted(ValueError(lines[-1]))}")
