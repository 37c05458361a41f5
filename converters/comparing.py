"""Two bundles side by side. What cannot be compared is shown and said, never subtracted."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from converters import figures, metrics
from edge_core.bundle.manifest import GateResult, Manifest, VariantRecord

COMPARISON_VERSION = 1

Value = bool | int | float | str | None
Unit = Literal["text", "share", "number", "bytes", "us"]
Better = Literal["a", "b"]
LOWER_IS_BETTER = {
    "size",
    "numeric error",
    "embedding error",
    "misplaced operators",
    "latency",
    *metrics.LOWER_IS_BETTER,
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fact of both bundles."""

    name: str
    a: Value
    b: Value
    unit: Unit = "text"
    change: float | None = None
    """``b - a``; none where the two cannot be subtracted."""
    better: Better | None = None
    """Whose figure is better; none where they are equal or cannot be compared."""
    differs: bool
    note: str = ""
    """Why the two are not compared."""

    @property
    def target(self) -> str:
        """Which variant it is about; empty where it is about the release."""
        return self.name.rpartition(": ")[0]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one kind."""

    name: str
    rows: list[Row]

    @property
    def differing(self) -> list[Row]:
        """Only the rows where the two differ."""
        return [row for row in self.rows if row.differs]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What two bundles say of themselves, ready for people and for ``msgspec.json.encode``."""

    schema_version: int = COMPARISON_VERSION
    a: str
    b: str
    notes: list[str]
    """What to know before reading the figures."""
    sections: list[Section]

    def section(self, name: str) -> Section:
        """One section by its name."""
        return next(section for section in self.sections if section.name == name)


def compare(a: Manifest, b: Manifest) -> Comparison:
    """Lay two bundles side by side, of whatever models.

    Figures of the test set are subtracted only where both come from the same test rows and the
    same classes; latencies only where both were measured on machines of the same kind.
    """
    reason = _why_figures_differ(a, b)
    return Comparison(
        a=f"{a.model}@{a.version}",
        b=f"{b.model}@{b.version}",
        notes=_notes(a, b),
        sections=[
            Section(name="contract", rows=_texts(_contract(a), _contract(b))),
            Section(name="metrics", rows=_metrics(a.metrics, b.metrics, reason)),
            Section(name="variants", rows=_variants(a, b, reason)),
            Section(name="gates", rows=_gates(a, b)),
            Section(name="provenance", rows=_texts(_provenance(a), _provenance(b))),
        ],
    )


def _notes(a: Manifest, b: Manifest) -> list[str]:
    found = []
    if a.model != b.model:
        found.append(f"These are different models: {a.model} and {b.model}.")
    if a.output.classes != b.output.classes:
        found.append("They answer different classes: their figures are not compared.")
    elif _test_rows(a) != _test_rows(b):
        found.append("They were tested on different rows: their figures are not compared.")
    for manifest, other in ((a, b), (b, a)):
        if manifest.parent and (manifest.parent.model, manifest.parent.version) == (
            other.model,
            other.version,
        ):
            found.append(f"{manifest.version} was gated against {other.version} as its parent.")
        if manifest.waivers:
            waived = ", ".join(dict.fromkeys(waiver.gate for waiver in manifest.waivers))
            found.append(f"{manifest.model}@{manifest.version} has waived gates: {waived}.")
    return found


def _test_rows(manifest: Manifest) -> list[str]:
    return sorted(record.sha256 for record in manifest.datasets if record.role == "test")


def _why_figures_differ(a: Manifest, b: Manifest) -> str:
    """Why test-set figures say nothing about the two models' order; empty where they do."""
    if a.output.classes != b.output.classes:
        return "other classes"
    return "other test rows" if _test_rows(a) != _test_rows(b) else ""


def _row(name: str, a: Value, b: Value, *, unit: Unit = "text", reason: str = "") -> Row:
    """A row; numbers are subtracted unless there is a reason against it."""
    numbers = [v for v in (a, b) if isinstance(v, int | float) and not isinstance(v, bool)]
    comparable = len(numbers) == 2 and not reason
    change = float(numbers[1] - numbers[0]) if comparable else None
    better: Better | None = None
    if change and unit != "text":
        gained = change < 0 if name.partition("/")[0] in LOWER_IS_BETTER else change > 0
        better = "b" if gained else "a"
    note = reason if len(numbers) == 2 else ""
    return Row(
        name=name, a=a, b=b, unit=unit, change=change, better=better, differs=a != b, note=note
    )


def _names(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """All names, in order, once."""
    return list(dict.fromkeys((*a, *b)))


def _texts(a: Mapping[str, Value], b: Mapping[str, Value]) -> list[Row]:
    return [_row(name, a.get(name), b.get(name)) for name in _names(a, b)]


def _metrics(a: Mapping[str, float], b: Mapping[str, float], reason: str) -> list[Row]:
    return [
        _row(name, a.get(name), b.get(name), unit="share", reason=reason) for name in _names(a, b)
    ]


def _variants(a: Manifest, b: Manifest, reason: str) -> list[Row]:
    """Rows named ``target: what``, for every target that either has."""
    left = {variant.target: variant for variant in a.variants}
    right = {variant.target: variant for variant in b.variants}
    rows: list[Row] = []
    for target in _names(left, right):
        own, other = left.get(target), right.get(target)
        if own is None or other is None:
            mine, theirs = ("yes" if v else "no such variant" for v in (own, other))
            rows.append(_row(f"{target}: built", mine, theirs))
            continue
        found = _variant((a, own), (b, other), reason)
        rows += [msgspec.structs.replace(row, name=f"{target}: {row.name}") for row in found]
    return rows


def _variant(
    a: tuple[Manifest, VariantRecord], b: tuple[Manifest, VariantRecord], reason: str
) -> list[Row]:
    def both(
        name: str, read: Callable[[Manifest, VariantRecord], Value], unit: Unit, why: str = ""
    ) -> Row:
        return _row(name, read(*a), read(*b), unit=unit, reason=why)

    metric = figures.main_metric(a[0])
    return [
        both("scheme", lambda _, v: figures.scheme(v), "text"),
        both("calibration", lambda _, v: figures.calibration(v), "text"),
        both("size", figures.size_bytes, "bytes"),
        both("numeric error", lambda _, v: v.numeric_error, "number", reason),
        *_embeddings(a[1], b[1], reason),
        both("top-1 agreement", lambda _, v: v.top1_agreement, "share", reason),
        both(metric, lambda _, v: v.metrics.get(metric), "share", reason),
        both("misplaced operators", lambda _, v: len(v.misplaced), "number"),
        both("layers in float", lambda _, v: ", ".join(v.float_layers) or None, "text"),
        both("ran on", lambda _, v: v.measured_on or "not run", "text"),
        *_latencies(a[1], b[1]),
        *_estimates(a[1], b[1]),
    ]


def _embeddings(a: VariantRecord, b: VariantRecord, reason: str) -> list[Row]:
    """Errors of the second outputs, where either release has one."""
    if a.embedding is msgspec.UNSET and b.embedding is msgspec.UNSET:
        return []
    errors = (figures.embedding_error(a), figures.embedding_error(b))
    return [_row("embedding error", *errors, unit="number", reason=reason)]


def _latencies(a: VariantRecord, b: VariantRecord) -> list[Row]:
    """Measured ones of the smallest batch that both have."""
    batches = [batch for batch in a.latency_us if batch in b.latency_us]
    if batches:
        batch = figures.smallest_batch(batches)
        pair = (a.latency_us[batch], b.latency_us[batch])
        same = machine_kind(a) == machine_kind(b)
        reason = "" if same else f"{machine_kind(a)} against {machine_kind(b)}"
        return [_row("latency", *pair, unit="us", reason=reason)]
    mine, theirs = ("measured" if v.latency_us else "not measured" for v in (a, b))
    return [_row("latency", mine, theirs)] if mine != theirs else []


def machine_kind(variant: VariantRecord) -> str:
    """What stands behind the last ``on`` of who answered: ``x86_64``, and not its runtime."""
    return variant.measured_on.rpartition(" on ")[2]


def _estimates(a: VariantRecord, b: VariantRecord) -> list[Row]:
    same = a.estimated_by == b.estimated_by
    reason = "" if same else f"{a.estimated_by or 'nobody'} against {b.estimated_by or 'nobody'}"
    rows = []
    for name in _names(a.estimate, b.estimate):
        left, right = a.estimate.get(name), b.estimate.get(name)
        row = _row(f"{name}, estimated", left, right, unit="number", reason=reason)
        lower = name.endswith(("_bytes", "_us")) or name == "cycles"
        if lower and row.better:
            row = msgspec.structs.replace(row, better="a" if row.better == "b" else "b")
        rows.append(row)
    return rows


def _gates(a: Manifest, b: Manifest) -> list[Row]:
    """Outcome and limit of every gate; they differ where either does."""
    left, right = _by_gate(a), _by_gate(b)
    rows = []
    for name in _names(left, right):
        own, other = left.get(name), right.get(name)
        differs = _essence(own) != _essence(other)
        rows.append(Row(name=name, a=_gate(own), b=_gate(other), differs=differs))
    return rows


def _by_gate(manifest: Manifest) -> dict[str, GateResult]:
    def name(gate: GateResult) -> str:
        parts = (gate.target, gate.gate, gate.slice)
        return " ".join(part for part in parts if part)

    return {name(gate): gate for gate in manifest.gates}


def _essence(gate: GateResult | None) -> tuple[object, ...]:
    return (None,) if gate is None else (gate.outcome, gate.waived, gate.threshold)


def _gate(gate: GateResult | None) -> str | None:
    if gate is None:
        return None
    return f"{figures.outcome_text(gate)} ({figures.verdict_text(gate)})"


def _contract(manifest: Manifest) -> Mapping[str, Value]:
    budget = manifest.budget
    return {
        "takes": manifest.input,
        "features": manifest.features_sha256,
        "answers": manifest.output.name,
        "meaning": manifest.output.meaning,
        "classes": ", ".join(manifest.output.classes),
        **({"embedding": f"{seen} coordinates"} if (seen := manifest.output.coordinates) else {}),
        "budget of latency": figures.time_text(budget.latency_us),
        "budget of memory": figures.size_text(budget.memory_bytes),
        "budget of size": figures.size_text(budget.size_bytes),
    } | {f"slice {name}": ", ".join(values) for name, values in manifest.slices.items()}


def _provenance(manifest: Manifest) -> dict[str, Value]:
    made = manifest.provenance
    found: dict[str, Value] = {}
    for record in manifest.datasets:
        found[f"data {record.role} {record.name}"] = f"{record.rows} rows, {record.sha256}"
    if (kept := manifest.snapshot) is not None:
        found |= {
            "data snapshot": kept.id,
            "data set": kept.name,
            "data source": kept.source,
            "data schema": kept.schema_sha256,
            "data time span": f"{kept.first} to {kept.last}" if kept.first else None,
        }
        found |= {f"data rows of {name}": f"{rows:,}" for name, rows in kept.rows.items()}
    found |= {"recipe": made.recipe, "recipe digest": made.recipe_sha256}
    found |= {f"setting {k}": figures.setting_text(v) for k, v in made.settings.items()}
    found |= {
        "commit": made.code_commit,
        "uncommitted changes": made.code_dirty,
        "seed": made.seed,
        "machine": made.machine,
        "parent": manifest.parent.name if manifest.parent else None,
        "teacher": manifest.teacher.name if manifest.teacher else None,
        "reproduced": manifest.reproducible,
    }
    return found | {f"tool {name}": version for name, version in made.tools.items()}
