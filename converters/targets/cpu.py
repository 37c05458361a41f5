"""What both processor families share: run here, or on an emulated 64-bit ARM."""

import abc
import importlib.metadata
import platform
from typing import ClassVar

from converters.model_file import ModelFile, Runner
from converters.refusal import StageFailed
from converters.targets import emulation, int8_io, latency
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Ran, Tool
from converters.tensors import Array, Feeds
from edge_core.errors import Unavailable

SUFFIX = {"onnx": ".onnx", "tflite": ".tflite"}
EMULATED = "aarch64"
INSTALL = "pip install 'serinus[convert]'"


class Processor(abc.ABC):
    """A processor target: the quantised file is the target's file."""

    package: ClassVar[str]
    """Distribution of the runtime."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    @property
    def native(self) -> bool:
        """Whether this machine is of the target's kind."""
        return platform.machine() == self.profile.machine

    @property
    def emulated(self) -> bool:
        """Whether the target's processor is one that can be emulated here."""
        return not self.native and self.profile.machine == EMULATED

    @property
    def emulated_cpu(self) -> str:
        """Qemu's name of the processor."""
        return str(self.profile.options.get("emulated_cpu", emulation.CPU))

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        try:
            runtime = f"{self.package} {importlib.metadata.version(self.package)}"
        except importlib.metadata.PackageNotFoundError:
            missing = f"{self.package} is missing: {INSTALL}"
            return Tool(compiles=False, runs=False, by="", missing=missing)
        if self.native:
            return Tool(compiles=True, runs=True, by=f"{runtime} on {platform.machine()}")
        if not self.emulated:
            missing = f"files run on {self.profile.machine} only; build this target there"
            return Tool(compiles=True, runs=False, by=runtime, missing=missing)
        if lack := emulation.missing():
            return Tool(compiles=True, runs=False, by=runtime, missing=lack)
        by = f"{runtime} on {EMULATED} under {emulation.describe(self.emulated_cpu)}"
        return Tool(compiles=True, runs=True, by=by)

    def compile(self, model: ModelFile) -> Compiled:
        """The quantised file as it is.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: the file is not what it is described as, or not what the target takes.
            Unavailable: the runtime is not installed.
        """
        tool = self.tool()
        if not tool.compiles:
            raise Unavailable(tool.missing)
        if model.format != self.profile.format:
            raise StageFailed(
                f"{self.profile.target} takes {self.profile.format} files, not {model.format}"
            )
        int8_io.Ends(model)
        return Compiled(data=model.data, source=model)

    def estimate(self, compiled: Compiled) -> Estimate:
        """Nothing: processors are measured."""
        return Estimate()

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer rows here, or on the emulated processor; only here latency is measured."""
        tool = self.tool()
        if not tool.runs:
            return None
        if self.emulated:
            return Ran(outputs=self._emulated(compiled, feeds), by=tool.by, on_hardware=False)
        answer = self.runner(compiled)
        return Ran(
            outputs=answer(feeds),
            by=tool.by,
            on_hardware=True,
            latency_us=latency.median_us(answer, feeds) if measure else {},
        )

    @abc.abstractmethod
    def runner(self, compiled: Compiled) -> Runner:
        """Load the file into this machine's runtime."""

    def install(self, say: emulation.Say) -> None:
        """Install what lacks to run files here.

        Raises:
            Unavailable: it cannot be had; the message says what to do.
        """
        if self.emulated:
            emulation.install(say)
        else:
            say(self.tool().missing or "nothing to install")

    def _emulated(self, compiled: Compiled, feeds: Feeds) -> dict[str, Array]:
        source = compiled.source
        ends = int8_io.Ends(source)
        suffix = SUFFIX[source.format]
        answers = emulation.run(compiled.data, suffix, ends.given(feeds), self.emulated_cpu)
        return ends.answered(answers)
