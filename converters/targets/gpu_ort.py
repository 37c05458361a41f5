"""GPUs through onnxruntime's WebGPU provider, in float16: int8 would fall back to the processor."""

from converters.targets.environments import Requirements
from converters.targets.vendor import Vendor

VERSION = "1.27.0"


class Adapter(Vendor):
    """See :class:`converters.targets.target.Target`."""

    requirements = Requirements("webgpu", ((f"onnxruntime-webgpu=={VERSION}", "numpy==2.4.6"),))
    worker = "webgpu.py"
    by = f"onnxruntime-webgpu {VERSION}"
    answers_by = "the Vulkan device of this machine"
    cannot_run = ("does not support it", "no WebGPU device")
