"""Arm Ethos-U NPUs through the vela compiler.

Vela leaves what the NPU cannot do to the processor beside it and still ends with 0, so the file
that it wrote is read again: everything in it but the ``ethos-u`` operator is misplaced.
"""

import csv
import importlib.metadata
import io
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import int8_io, litert, tflite_graph
from converters.targets.floating_left import called
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds
from edge_core.errors import InvalidConfiguration, Unavailable, quoted

PACKAGE = "ethos-u-vela"
INSTALL = "pip install ethos-u-vela==5.2.0"
SECONDS = 300.0
NPU_OPERATOR = "ethos-u"
KIB = 1024.0
SETTINGS = {
    "accelerator": "--accelerator-config",
    "config": "--config",
    "system": "--system-config",
    "memory": "--memory-mode",
    "optimise": "--optimise",
}
"""Options of a profile, and vela's names for them."""
NEEDED = ("accelerator", "config", "system", "memory")
_REFUSED = re.compile(r"operator: \w+, ofm: '([^']*)'\nReason: ([^(\n]*[^(\n ])")
"""Output tensor, and why its operator stays on the processor, without other tensors' names."""


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
        return Tool(compiles=True, runs=False, by=f"vela {version}")

    def compile(self, model: ModelFile) -> Compiled:
        """Compile an int8 TFLite file, in a process of its own: damaged files end it.

        Raises:
            InvalidConfiguration: the profile lacks an option.
            InvalidInput: the file is damaged.
            StageFailed: vela refuses the file.
            Unavailable: vela is not installed.
        """
        tool = self.tool()
        if not tool.compiles:
            raise Unavailable(tool.missing)
        if model.format != "tflite":
            raise StageFailed(f"{self.profile.target} takes tflite files, not {model.format}")
        int8_io.Ends(model)
        with tempfile.TemporaryDirectory() as temporary:
            source, made = Path(temporary) / "model.tflite", Path(temporary) / "made"
            source.write_bytes(model.data)
            said = _vela([str(source), f"--output-dir={made}", *self._options()])
            report = {
                "summary": _only(made, "*_summary_*.csv").read_text(),
                "layers": _only(made, "*_per-layer.csv").read_text(),
                "refused": "\n".join(f"{name}\t{why}" for name, why in _REFUSED.findall(said)),
            }
            data = _only(made, "*_vela.tflite").read_bytes()
        return Compiled(data=data, source=model, report=report)

    def placement(self, compiled: Compiled) -> Placement:
        """What vela's file leaves to the processor, and what its report puts on the NPU."""
        left = [op for op in tflite_graph.operators(compiled.data) if op.kind != NPU_OPERATOR]
        rows = csv.DictReader(io.StringIO(compiled.report["layers"]))
        there = Counter(f"NPU/{row['NNG Operator']}" for row in rows if row["Target"] == "NPU")
        here = Counter(f"CPU/{entry.kind}" for entry in left)
        lines = compiled.report["refused"].splitlines()
        reasons = dict(line.split("\t", 1) for line in lines)
        misplaced = tuple(
            f"{entry.kind} {called(compiled.source, entry.output)} on the CPU"
            + (f" ({reasons[entry.output]})" if entry.output in reasons else "")
            for entry in left
        )
        return Placement(operators=dict(sorted((there + here).items())), misplaced=misplaced)

    def estimate(self, compiled: Compiled) -> Estimate:
        """Vela's own model of the hardware, not a measurement; flash holds the whole file.

        SRAM and DRAM are those of the NPU alone. Where nothing is on the NPU, there is no time.
        """
        row = next(csv.DictReader(io.StringIO(compiled.report["summary"])))
        figures = {
            "sram_bytes": float(row["sram_memory_used"]) * KIB,
            "dram_bytes": float(row["dram_memory_used"]) * KIB,
            "flash_bytes": float(len(compiled.data)),
        }
        cycles = float(row["cycles_total"])
        if cycles > 0:
            figures["cycles"] = cycles
            figures["latency_us"] = float(row["inference_time"]) * 1e6
            figures["inferences_per_second"] = float(row["inferences_per_second"])
            figures["macs"] = float(row["nn_macs"])
        return Estimate(figures=figures, by=f"{self.tool().by}, {row['system_config']}")

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer with the int8 file before compilation: there is no simulator here.

        By the kernels that define the arithmetic, which the NPU keeps to.
        """
        by = f"{litert.version()}, reference kernels: the int8 file before compilation"
        answer = litert.runner(compiled.source, reference=True)
        return Ran(outputs=answer(feeds), by=by, on_hardware=False)

    def _options(self) -> list[str]:
        options = self.profile.options
        if lacking := [name for name in NEEDED if name not in options]:
            raise InvalidConfiguration(
                f"profile {self.profile.target} lacks options.{', options.'.join(lacking)}"
            )
        given = [f"{SETTINGS[name]}={options[name]}" for name in SETTINGS if name in options]
        if sram := self.profile.limits.sram_bytes:
            given.append(f"--arena-cache-size={sram}")
        return [*given, "--verbose-performance"]


def _vela(arguments: list[str]) -> str:
    """What vela said.

    Raises:
        StageFailed: it failed.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ethosu.vela", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"vela took more than {SECONDS:g} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise StageFailed(f"vela ended with {done.returncode}: {quoted(ValueError(lines[-1]))}")
    return done.stdout + done.stderr


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise StageFailed(f"vela wrote {len(found)} files {pattern}; is it another version?")
    return found[0]
