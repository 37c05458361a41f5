"""What people read off a manifest: figures picked and put into words, the same wherever shown."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from edge_core.bundle.manifest import FileEntry, GateResult, VariantRecord, Waiver

UNKNOWN = "-"
SMALLEST_BATCH = "1"


class Built(Protocol):
    """What a build made: a release, or a conversion without one."""

    @property
    def variants(self) -> list[VariantRecord]:
        """Every target's."""
        ...

    @property
    def metrics(self) -> dict[str, float]:
        """Test-set figures; none where no labels are known."""
        ...

    @property
    def main_metric(self) -> str:
        """The one that gates watch; empty where nobody said."""
        ...

    @property
    def gates(self) -> list[GateResult]:
        """Every gate's outcome."""
        ...

    @property
    def waivers(self) -> list[Waiver]:
        """What people decided despite a gate."""
        ...

    def file(self, path: str) -> FileEntry:
        """The entry of one file."""
        ...


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long one answer takes, and how that is known."""

    us: float
    kind: Literal["measured", "estimated"]
    by: str
    batch: str = SMALLEST_BATCH


def main_metric(built: Built) -> str:
    """Name of the figure that stands for the whole: what gates watch, accuracy, or the first."""
    overall = [name for name in built.metrics if "/" not in name]
    if built.main_metric in overall:
        return built.main_metric
    return "accuracy" if "accuracy" in overall or not overall else overall[0]


def metric_title(name: str) -> str:
    """A metric's name as a heading."""
    known = {"roc_auc": "ROC AUC", "macro_f1": "Macro F1", "ece": "Calibration error (ECE)"}
    return known.get(name, name.replace("_", " ").capitalize())


def of_slices(metrics: Mapping[str, float], metric: str) -> dict[str, float]:
    """The metric's figures by slice ``name=value``."""
    start = f"{metric}/"
    return {
        name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)
    }


def thin_slices(gates: Iterable[GateResult]) -> set[str]:
    """Slices with too few rows for a gate."""
    return {gate.slice for gate in gates if gate.slice and gate.outcome == "no_evidence"}


def worst_slice(
    metrics: Mapping[str, float], metric: str, thin: Iterable[str] = ()
) -> tuple[str, float] | None:
    """The slice with the lowest figure, ``thin`` ones left out; none where no slice is left."""
    found = of_slices(metrics, metric)
    for name in thin:
        found.pop(name, None)
    return min(found.items(), key=lambda item: (item[1], item[0]), default=None)


def latency(variant: VariantRecord) -> Latency | None:
    """Measured where the file ran on hardware, else what the target's tool predicts, else none."""
    if variant.latency_us:
        batch = smallest_batch(variant.latency_us)
        us = variant.latency_us[batch]
        return Latency(us=us, kind="measured", by=variant.measured_on, batch=batch)
    if "latency_us" in variant.estimate:
        us = variant.estimate["latency_us"]
        return Latency(us=us, kind="estimated", by=variant.estimated_by)
    return None


def smallest_batch(batches: Iterable[str]) -> str:
    """The smallest of one or more batch sizes, written as in the manifest."""
    return min(batches, key=lambda text: (len(text), text))


def size_bytes(manifest: "Built", variant: VariantRecord) -> int:
    """Bytes of the variant's model file."""
    return manifest.file(variant.path).size


def scheme(variant: VariantRecord) -> str:
    """How the numbers are stored, such as ``int8 static``."""
    return str(variant.quantization.get("scheme", UNKNOWN))


def calibration(variant: VariantRecord) -> str:
    """How ranges were chosen, such as ``min/max``."""
    return str(variant.quantization.get("calibration", UNKNOWN))


def where_run(variant: VariantRecord) -> Literal["hardware", "simulated", "not run"]:
    """Who answered the test rows; compiled only is not run."""
    if variant.ran_on_hardware:
        return "hardware"
    return "simulated" if variant.measured_on else "not run"


def unwaived(gates: Iterable[GateResult]) -> list[GateResult]:
    """Gates that stop a release: failed or without evidence, and nobody waived them."""
    return [gate for gate in gates if gate.outcome != "passed" and not gate.waived]


def reason_of(gate: GateResult, waivers: Iterable[Waiver]) -> str:
    """Why a person waived the gate; empty where nobody did."""
    for waiver in waivers:
        if gate.waived and (waiver.gate, waiver.slice) == (gate.gate, gate.slice):
            return waiver.reason
    return ""


def outcome_text(gate: GateResult) -> str:
    """The outcome in words, waiver included."""
    return gate.outcome.replace("_", " ") + (", waived" if gate.waived else "")


def verdict_text(gate: GateResult) -> str:
    """What was found against what was wanted, in a few words."""
    parts = []
    if gate.value is not None:
        parts.append(f"found {number(gate.value)}")
    if gate.threshold is not None:
        parts.append(f"limit {number(gate.threshold)}")
    if gate.rows is not None:
        parts.append(f"{gate.rows} rows")
    if gate.detail:
        parts.append(gate.detail)
    return ", ".join(parts) or "no figures"


def printable(text: str) -> str:
    """Foreign text for a terminal: one line, nothing that moves the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def setting_text(value: object) -> str:
    """A recipe's setting; lists without brackets."""
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def embedding_error(variant: VariantRecord) -> float | None:
    """Of the second output, as ``numeric_error``; none where there is none or nothing ran it."""
    shown = variant.embedding
    return None if isinstance(shown, msgspec.UnsetType) else shown.numeric_error


def number(value: float | None) -> str:
    """Four significant digits without exponents for sizes and times; ``-`` for none."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(value: float | None) -> str:
    """Three decimals; ``-`` for none."""
    return UNKNOWN if value is None else f"{value:.3f}"


def size_text(count: float) -> str:
    """Bytes in powers of 1000, such as ``8.8 kB``."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{_three(count / factor)} {unit}"
    return f"{count:.0f} B"


def time_text(us: float) -> str:
    """Microseconds in a unit that suits, such as ``10.2 us`` or ``3.5 ms``."""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if us >= factor:
            return f"{_three(us / factor)} {unit}"
    return f"{_three(us)} us"


def _three(value: float) -> str:
    """About three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def wilson(value: float, rows: int) -> tuple[float, float]:
    """Interval of 95 % for a share of ``rows`` independent rows (Wilson 1927)."""
    z = 1.96
    middle = (value + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(value * (1 - value) / rows + (z / (2 * rows)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def area_interval(value: float, first: int, other: int) -> tuple[float, float]:
    """Interval of 95 % for an area under the ROC curve of so many rows of two classes.

    Source: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve" (1982).
    """
    one, two = value / (2 - value), 2 * value * value / (1 + value)
    spread = value * (1 - value) + (first - 1) * (one - value**2) + (other - 1) * (two - value**2)
    half = 1.96 * math.sqrt(max(0.0, spread) / (first * other))
    return max(0.0, value - half), min(1.0, value + half)
