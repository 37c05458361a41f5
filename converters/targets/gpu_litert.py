"""GPUs through LiteRT's WebGPU delegate, in float16: int8 would be computed in float there, too."""

import importlib.metadata
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import environments, int8_io, tflite_graph, vulkan
from converters.targets.environments import Said
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds, pack_places, unpack_places
from edge_core.errors import Unavailable

PACKAGE = "ai-edge-litert"
INSTALL = "pip install 'serinus[convert]'"
WORKER = "litert_gpu.py"
PLACE = "GPU"
_ADAPTER = re.compile(r"Selected adapter: (.+), arch=.*, adapterType=([^\n]*)")
_SOFTWARE = "CPU"


class Adapter:
    """See :class:`converters.targets.target.Target`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        try:
            by = f"LiteRT {importlib.metadata.version(PACKAGE)}"
        except importlib.metadata.PackageNotFoundError:
            missing = f"{PACKAGE} is missing: {INSTALL}"
            return Tool(compiles=False, runs=False, by="", missing=missing)
        if lack := vulkan.missing(self.profile.target):
            return Tool(compiles=True, runs=False, by=by, missing=lack)
        return Tool(compiles=True, runs=True, by=f"{by}'s GPU delegate on {vulkan.describe()}")

    def install(self, say: environments.Say) -> None:
        """Install a Vulkan driver in software, where there is no GPU.

        Raises:
            Unavailable: it cannot be had.
        """
        vulkan.install(say)

    def compile(self, model: ModelFile) -> Compiled:
        """The float16 file itself, after the delegate took it where there is a device.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: LiteRT or its delegate refuses the file.
            Unavailable: LiteRT is not installed.
        """
        tool = self.tool()
        if not tool.compiles:
            raise Unavailable(tool.missing)
        if model.format != "tflite":
            raise StageFailed(f"{self.profile.target} takes tflite files, not {model.format}")
        int8_io.Ends(model)
        report = {}
        if tool.runs:
            with tempfile.TemporaryDirectory() as temporary:
                file, told = Path(temporary) / "model.tflite", Path(temporary) / "told.json"
                file.write_bytes(model.data)
                _work("compile", file, told)
                report["whole"] = str(json.loads(told.read_text())["whole"])
        return Compiled(data=model.data, source=model, report=report)

    def placement(self, compiled: Compiled) -> Placement:
        """On the GPU where the delegate took all; empty where there was no device to ask.

        Of a file that it took in part LiteRT does not tell which operators it left.
        """
        if "whole" not in compiled.report:
            return Placement(operators={})
        whole = compiled.report["whole"] == "True"
        place = PLACE if whole else f"{PLACE} or CPU"
        kinds = Counter(f"{place}/{op.kind}" for op in tflite_graph.operators(compiled.data))
        left = () if whole else ("operators on the CPU, LiteRT does not tell which",)
        return Placement(operators=dict(sorted(kinds.items())), misplaced=left)

    def estimate(self, compiled: Compiled) -> Estimate:
        """Nothing: LiteRT predicts nothing."""
        return Estimate()

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer on the device, row by row; no latency: most of it would be the row's way there."""
        tool = self.tool()
        if not tool.runs:
            return None
        ends = int8_io.Ends(compiled.source)
        with tempfile.TemporaryDirectory() as temporary:
            names = ("model.tflite", "feeds.npz", "answers.npz")
            files = [Path(temporary) / name for name in names]
            files[0].write_bytes(compiled.data)
            files[1].write_bytes(pack_places(ends.given(feeds)))
            said = _work("run", *files)
            answers = unpack_places(files[2].read_bytes())
        hardware = _adapter(said)
        return Ran(outputs=ends.answered(answers), by=tool.by, on_hardware=hardware)


def _adapter(said: Said) -> bool:
    """Whether LiteRT says that it chose a GPU; a device that it does not name is none."""
    found = _ADAPTER.search(said.errors)
    return found is not None and not found.group(2).startswith(_SOFTWARE)


def _work(what: str, *files: Path) -> Said:
    arguments = [what, *map(str, files)]
    return environments.run_worker(None, WORKER, arguments, vulkan.variables())
