"""Microcontrollers through TensorFlow Lite Micro."""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converters import host, tflite_int8
from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import int8_io
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Array, Feeds, pack_places, unpack_places
from edge_core.errors import Unavailable

PACKAGE = "tflite-micro"
INSTALL = "pip install 'serinus[convert]'"
ARENA_BYTES = 64 * 1024 * 1024
"""For measuring: more than any microcontroller has, so that a model too large gets a figure."""
SECONDS = 300.0
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_NO_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


class _Answered(NamedTuple):
    outputs: list[Array]
    arena_bytes: int


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
            return Tool(compiles=True, runs=False, by="", missing=missing)
        return Tool(compiles=True, runs=True, by=f"{PACKAGE} {version}, reference kernels")

    def compile(self, model: ModelFile) -> Compiled:
        """The int8 file itself: the interpreter is compiled into the device's program."""
        return Compiled(data=model.data, source=model)

    def placement(self, compiled: Compiled) -> Placement:
        """From the operators of the file; a float one would need a float unit and its kernels."""
        found = tflite_int8.placement(compiled.source)
        floats = tuple(name for name in found.operators if name.endswith("/float32"))
        return Placement(operators=found.operators, misplaced=floats)

    def estimate(self, compiled: Compiled) -> Estimate:
        """Arena as the interpreter lays it out; flash for the model alone."""
        tool = self.tool()
        figures = {"flash_bytes": float(len(compiled.data))}
        if not tool.runs:
            return Estimate(figures=figures, by="size of the file")
        source = compiled.source
        zeros = {spec.name: np.zeros((1, *spec.shape), np.float32) for spec in source.inputs}
        answered = _answer(compiled.data, _quantised(compiled, zeros))
        return Estimate(figures=figures | {"arena_bytes": float(answered.arena_bytes)}, by=tool.by)

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Row by row in the interpreter on this machine."""
        tool = self.tool()
        if not tool.runs:
            return None
        answered = _answer(compiled.data, _quantised(compiled, feeds))
        details = host.interpreter(compiled.data, 1).get_output_details()
        names = host.places(compiled.source)[1]
        outputs = {
            name: int8_io.dequantised(found, entry)
            for name, found, entry in zip(names, answered.outputs, details, strict=True)
        }
        return Ran(outputs=outputs, by=f"{tool.by} on this machine", on_hardware=False)


def _quantised(compiled: Compiled, feeds: Feeds) -> list[Array]:
    details = host.interpreter(compiled.data, 1).get_input_details()
    return [
        int8_io.quantised(int8_io.scaled(feeds[name], compiled.source.scaling), entry)
        for name, entry in zip(host.places(compiled.source)[0], details, strict=True)
    ]


def _answer(model: bytes, given: list[Array]) -> _Answered:
    """Run the interpreter in a process of its own: it ends the process where it gives up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model.tflite").write_bytes(model)
        (folder / "feeds.npz").write_bytes(pack_places(given))
        worker = Path(__file__).parent / "workers" / "micro.py"
        files = [str(folder / name) for name in ("model.tflite", "feeds.npz", "answers.npz")]
        try:
            done = subprocess.run(
                [sys.executable, str(worker), *files, str(ARENA_BYTES)],
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageFailed(f"{PACKAGE} took more than {SECONDS:g} s") from error
        said = done.stderr.decode(errors="replace")
        if done.returncode or not (total := _TOTAL.search(said)):
            raise _failure(done.returncode, said)
        return _Answered(unpack_places((folder / "answers.npz").read_bytes()), int(total.group(1)))


def _failure(code: int, said: str) -> StageFailed | Unavailable:
    if operator := _NO_OPERATOR.search(said):
        return StageFailed(
            f"{PACKAGE} has no kernel for {operator.group(1)}; replace that layer, or build for "
            "another target"
        )
    if "ModuleNotFoundError" in said:
        return Unavailable(f"{PACKAGE} is missing: {INSTALL}")
    lines = said.strip().splitlines()
    return StageFailed(f"{PACKAGE} ended with {code}: {lines[-1] if lines else 'no word'}")
