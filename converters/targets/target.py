"""What every target offers: compile, placement, estimate, run."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from converters.model_file import ModelFile
from converters.product import Plain
from converters.targets.profile import Profile
from converters.tensors import Array, Feeds


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this machine can serve the target."""

    compiles: bool
    runs: bool
    """Whether compiled files can be run here, for real or simulated."""
    by: str
    """What compiles and what runs, with versions, such as ``vela 5.2.0``."""
    missing: str = ""
    """What is not there and the one command that installs it; empty where nothing lacks."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where each operator of the compiled model runs."""

    operators: Mapping[str, int]
    """``place/kind`` -> count, such as ``CPUExecutionProvider/QLinearConv``; empty: not known."""
    misplaced: tuple[str, ...] = ()
    """Operators that do not run where the profile wants them, or stayed in float."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What the target's own tool predicts; units in the names, none where it says nothing."""

    figures: Mapping[str, float] = {}
    """Such as cycles, sram_bytes, flash_bytes, arena_bytes, latency_us, inferences_per_second."""
    by: str = ""


class Compiled(Plain, frozen=True, kw_only=True):
    """The file that goes into the bundle, and the one it was made of."""

    data: bytes
    source: ModelFile
    report: Mapping[str, str] = {}
    """What the tool wrote about it, by name, for placement and estimate."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of the compiled model and who gave them."""

    outputs: dict[str, Array]
    """By output name, float32 [rows, ...]: dequantised where the model answers int8."""
    by: str
    """Such as ``onnxruntime 1.32.0 on x86_64`` or ``... under qemu 7.2 (neoverse-n1)``."""
    on_hardware: bool
    latency_us: Mapping[str, float] = {}
    """Median by batch size; only where it was measured on hardware of the target's kind."""


class Target(Protocol):
    """One adapter instance for one profile. Constructing it is cheap and imports no tool."""

    profile: Profile

    def tool(self) -> Tool:
        """What is installed here. Fast: nothing is compiled."""
        ...

    def compile(self, model: ModelFile) -> Compiled:
        """Turn a quantised file into the target's own.

        Raises:
            StageFailed: the tool refuses the model; the message names the operator.
            Unavailable: the tool is missing; the message has the command that installs it.
        """
        ...

    def placement(self, compiled: Compiled) -> Placement:
        """Where operators run, read from what the tool or runtime really did."""
        ...

    def estimate(self, compiled: Compiled) -> Estimate:
        """What the tool predicts of cost."""
        ...

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer rows; none where nothing here can run the file.

        Args:
            compiled: what :meth:`compile` made.
            feeds: unscaled rows; the adapter scales and quantises where the file wants int8.
            measure: whether to measure latency, too, where that means something.
        """
        ...
