"""GPUs through LiteRT, in float16. Files are made here and not yet run."""

import importlib.metadata

from converters.model_file import ModelFile
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds

PACKAGE = "ai-edge-litert"


class Adapter:
    """See :class:`converters.targets.target.Target`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        by = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        missing = "files are made, not run, on this side: try them on a device"
        return Tool(compiles=True, runs=False, by=by, missing=missing)

    def compile(self, model: ModelFile) -> Compiled:
        """The float16 file itself; the delegate compiles it on the device."""
        return Compiled(data=model.data, source=model)

    def placement(self, compiled: Compiled) -> Placement:
        """Not known: where the delegate puts operators only the device can tell."""
        return Placement(operators={})

    def estimate(self, compiled: Compiled) -> Estimate:
        """Nothing is known without the device."""
        return Estimate()

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Nothing here runs it."""
        return None
