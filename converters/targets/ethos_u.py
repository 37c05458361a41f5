"""Arm Ethos-U NPUs through the vela compiler.

Vela leaves what the NPU cannot do to the processor beside it and still ends with 0, so the file
that it wrote is read again: everything but the ``ethos-u`` operator is misplaced.
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

from converters import host
from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds
from edge_core.errors import Unavailable

PACKAGE = "ethos-u-vela"
INSTALL = "pip install 'serinus[convert]'"
START = "import sys; from ethosu.vela.vela import main; sys.exit(main(sys.argv[1:]))"
"""In a process of its own: vela keeps state between two models and ends the process on errors."""
SECONDS = 300.0
NPU_OPERATOR = "ethos-u"
KIB = 1024.0
_ON_NPU = re.compile(r"NPU operators = (\d+)")


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
        """Compile an int8 TFLite file."""
        if not self.tool().compiles:
            raise Unavailable(self.tool().missing)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            source = folder / "model.tflite"
            source.write_bytes(model.data)
            said = _vela([*self._options(), "--output-dir", str(folder / "out"), str(source)])
            summaries = list((folder / "out").glob("*_summary_*.csv"))
            written = folder / "out" / "model_vela.tflite"
            if len(summaries) != 1 or not written.is_file():
                raise StageFailed(f"vela wrote no summary or file for {self.profile.target}")
            report = {"summary": summaries[0].read_text(), "said": said}
            return Compiled(data=written.read_bytes(), source=model, report=report)

    def placement(self, compiled: Compiled) -> Placement:
        """Operators on the NPU as vela counts them, the others as its file holds them."""
        on_cpu = Counter(name for name in _operators(compiled.data) if name != NPU_OPERATOR)
        counted = _ON_NPU.search(compiled.report["said"])
        operators = {f"CPU/{name}": count for name, count in sorted(on_cpu.items())}
        if counted:
            operators["NPU/operators"] = int(counted.group(1))
        return Placement(operators=operators, misplaced=tuple(sorted(on_cpu)))

    def estimate(self, compiled: Compiled) -> Estimate:
        """From vela's summary: its cycle model, not a measurement."""
        row = next(csv.DictReader(io.StringIO(compiled.report["summary"])))
        flash = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
        figures = {
            "cycles": float(row["cycles_total"]),
            "latency_us": float(row["inference_time"]) * 1e6,
            "inferences_per_second": float(row["inferences_per_second"]),
            "sram_bytes": float(row["sram_memory_used"]) * KIB,
            "dram_bytes": float(row["dram_memory_used"]) * KIB,
            "flash_bytes": flash * KIB,
            "macs": float(row["nn_macs"]),
        }
        return Estimate(figures=figures, by=f"{self.tool().by}, cycle model")

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer with the int8 file before compilation: there is no simulator here."""
        version = importlib.metadata.version("ai-edge-litert")
        by = f"ai-edge-litert {version}: the int8 file before compilation"
        return Ran(outputs=host.runner(compiled.source)(feeds), by=by, on_hardware=False)

    def _options(self) -> list[str]:
        options = self.profile.options
        return [
            *("--accelerator-config", str(options["accelerator"])),
            *("--system-config", str(options["system"])),
            *("--memory-mode", str(options["memory"])),
            *("--config", str(options["config"])),
        ]


def _vela(arguments: list[str]) -> str:
    command = [sys.executable, "-c", START, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"vela took more than {SECONDS:g} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise StageFailed(f"vela ended with {done.returncode}: {lines[-1] if lines else 'no word'}")
    return done.stdout


def _operators(data: bytes) -> list[str]:
    """Names of a TFLite file's operators, custom ones by their own."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    names = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    model = tfl_flatbuffer_utils.read_model(bytearray(data))
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            custom = code.customCode
            found.append(custom.decode() if custom else names[code.builtinCode])
    return found
