"""GPUs through onnxruntime's WebGPU provider, in float16: int8 would fall back to the processor.

The wheel with the provider built in is used: the one that plugs it into our own onnxruntime
(``onnxruntime-ep-webgpu`` 0.4.0) finds devices through the kernel and thus no driver in software.
"""

from collections.abc import Mapping

import msgspec

from converters.model_file import ModelFile
from converters.targets import environments, vulkan
from converters.targets.environments import Requirements
from converters.targets.target import Compiled, Ran, Tool
from converters.targets.vendor import Vendor
from converters.tensors import Feeds

VERSION = "1.27.0"


class Adapter(Vendor):
    """See :class:`converters.targets.target.Target`."""

    requirements = Requirements("webgpu", ((f"onnxruntime-webgpu=={VERSION}", "numpy==2.4.6"),))
    worker = "webgpu.py"
    by = f"onnxruntime-webgpu {VERSION}"
    answers_by = "on the Vulkan device"

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        tool = super().tool()
        if not tool.compiles:
            return tool
        if lack := vulkan.missing(self.profile.target):
            return Tool(compiles=True, runs=False, by=self.by, missing=lack)
        return msgspec.structs.replace(tool, by=f"{self.by} on {vulkan.describe()}")

    def install(self, say: environments.Say) -> None:
        """Make the environment and, where there is no GPU, a Vulkan driver.

        Raises:
            Unavailable: a package cannot be had.
        """
        super().install(say)
        vulkan.install(say)

    def compile(self, model: ModelFile) -> Compiled:
        """The file itself, after it ran once where there is a device.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: onnxruntime or the device refuses the file.
            Unavailable: the provider is not installed.
        """
        if vulkan.missing(self.profile.target):
            self.check(model)
            return Compiled(data=model.data, source=model, report={"told": "{}"})
        return super().compile(model)

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer on the device; no latency: a driver in software says nothing of a GPU."""
        ran = super().run(compiled, feeds, measure=measure)
        if ran is None:
            return None
        return msgspec.structs.replace(ran, by=self.tool().by, on_hardware=vulkan.gpu())

    def variables(self) -> Mapping[str, str]:
        """The Vulkan device."""
        return vulkan.variables()
