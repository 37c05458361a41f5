"""What both processor families share: run here, or on an emulated 64-bit ARM."""

import importlib.metadata
import platform

from converters import host, parity
from converters.model_file import ModelFile
from converters.targets import emulation, int8_io
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Ran, Tool
from converters.tensors import Feeds

SUFFIX = {"onnx": ".onnx", "tflite": ".tflite"}
EMULATED = "aarch64"


class Processor:
    """A processor target: the quantised file is the target's file."""

    package: str
    """Distribution of the runtime."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        runtime = f"{self.package} {importlib.metadata.version(self.package)}"
        if self._native():
            return Tool(compiles=True, runs=True, by=f"{runtime} on {platform.machine()}")
        if self.profile.machine != EMULATED:
            missing = f"runs on {self.profile.machine} machines only"
            return Tool(compiles=True, runs=False, by=runtime, missing=missing)
        if lack := emulation.missing():
            return Tool(compiles=True, runs=False, by=runtime, missing=lack)
        by = f"{runtime} on {EMULATED} under {emulation.describe(self._emulated_cpu())}"
        return Tool(compiles=True, runs=True, by=by)

    def compile(self, model: ModelFile) -> Compiled:
        """See :class:`converters.targets.target.Target`."""
        return Compiled(data=model.data, source=model)

    def estimate(self, compiled: Compiled) -> Estimate:
        """See :class:`converters.targets.target.Target`."""
        return Estimate()

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """See :class:`converters.targets.target.Target`."""
        tool = self.tool()
        if not tool.runs:
            return None
        if not self._native():
            return Ran(outputs=self._emulated(compiled, feeds), by=tool.by, on_hardware=False)
        run = host.runner(compiled.source)
        return Ran(
            outputs=run(feeds),
            by=tool.by,
            on_hardware=True,
            latency_us=parity.latency_us(run, feeds) if measure else {},
        )

    def install(self, say: emulation.Say) -> None:
        """Install what lacks on this machine."""
        if not self._native() and self.profile.machine == EMULATED:
            emulation.install(say)
        else:
            say("nothing to install")

    def _native(self) -> bool:
        return platform.machine() == self.profile.machine

    def _emulated_cpu(self) -> str:
        return str(self.profile.options["emulated_cpu"])

    def _emulated(self, compiled: Compiled, feeds: Feeds) -> dict[str, int8_io.Array]:
        source = compiled.source
        taken, given = host.places(source)
        rows = [feeds[name] for name in taken]
        suffix = SUFFIX[source.format]
        answers = emulation.run(compiled.data, suffix, rows, self._emulated_cpu())
        return dict(zip(given, answers, strict=True))
