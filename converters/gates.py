"""Thresholds that a bundle has to pass. A slice without rows is "no evidence", never a pass."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from converters.dataset import Rows
from converters.export import Float32
from converters.recipe import Recipe
from converters.refusal import RefusedByGate, WrongUse
from edge_core.bundle.manifest import GateResult, Manifest, VariantRecord, Waiver

Bool = npt.NDArray[np.bool_]


def slices_of(recipe: Recipe, rows: Rows) -> dict[str, Bool]:
    """Declared slices as ``name=value`` -> bool [rows]."""
    return {
        f"{name}={value}": rows.mask(name, value)
        for name, values in recipe.slices.items()
        for value in values
    }


def metrics(logits: Float32, rows: Rows, slices: Mapping[str, Bool]) -> dict[str, float]:
    """Accuracy overall and on each slice that has rows."""
    right = logits.argmax(axis=1) == rows.labels
    found = {"accuracy": float(right.mean())}
    found |= {
        f"accuracy/{name}": float(right[mask].mean()) for name, mask in slices.items() if mask.any()
    }
    return found


def judge_variant(
    recipe: Recipe,
    record: VariantRecord,
    own: Mapping[str, float],
    floating: Mapping[str, float],
    slices: Mapping[str, Bool],
    float_products: Sequence[str],
) -> list[GateResult]:
    """Gates of one variant against the fp32 model."""
    limits = recipe.gates
    latency = record.latency_us["1"]
    results = [
        _at_most("numeric_error", record.numeric_error, limits.numeric_error, record.target),
        _at_least("top1_agreement", record.top1_agreement, limits.top1_agreement, record.target),
        _at_most("latency_us", latency, recipe.budget.latency_us, record.target),
        _at_most("float_products", float(len(float_products)), 0.0, record.target),
    ]
    drop = floating["accuracy"] - own["accuracy"]
    results.append(_at_most("accuracy_drop", drop, limits.accuracy_drop, record.target))
    for name, mask in slices.items():
        results.append(
            _on_slice(
                "accuracy_drop",
                name,
                int(mask.sum()),
                limits.min_slice_rows,
                lambda key: floating[key] - own[key],
                limits.accuracy_drop_slice,
                record.target,
            )
        )
    return results


def judge_release(
    recipe: Recipe,
    own: Mapping[str, float],
    baseline: Mapping[str, float],
    parent: Manifest | None,
    slices: Mapping[str, Bool],
    size: int,
) -> list[GateResult]:
    """Gates of the whole release: baseline, parent, size."""
    limits = recipe.gates
    below = baseline["accuracy"] - own["accuracy"]
    results = [
        _at_most("below_baseline", below, limits.below_baseline, None),
        _at_most("size_bytes", float(size), float(recipe.budget.size_bytes), None),
    ]
    if parent is None:
        return results
    before = parent.metrics
    if "accuracy" in before:
        drop = before["accuracy"] - own["accuracy"]
        results.append(_at_most("below_parent", drop, limits.below_parent, None))
    for name, mask in slices.items():
        if f"accuracy/{name}" in before:
            results.append(
                _on_slice(
                    "below_parent",
                    name,
                    int(mask.sum()),
                    limits.min_slice_rows,
                    lambda key: before[key] - own[key],
                    limits.below_parent_slice,
                    None,
                )
            )
    return results


def apply_waivers(results: Sequence[GateResult], waivers: Sequence[Waiver]) -> list[GateResult]:
    """Mark what a person waived; raise :class:`WrongUse` for a waiver that waives nothing."""
    marked = list(results)
    for waiver in waivers:
        hits = [
            index
            for index, result in enumerate(marked)
            if result.outcome != "passed"
            and result.gate == waiver.gate
            and result.slice == waiver.slice
        ]
        if not hits:
            where = f":{waiver.slice}" if waiver.slice else ""
            raise WrongUse(f"--waive {waiver.gate}{where} waives nothing: that gate did not fail")
        for index in hits:
            marked[index] = msgspec.structs.replace(marked[index], waived=True)
    return marked


def enforce(results: Sequence[GateResult]) -> None:
    """Raise :class:`RefusedByGate` naming every gate that neither passed nor was waived."""
    failed = [result for result in results if result.outcome != "passed" and not result.waived]
    if failed:
        told = "; ".join(dict.fromkeys(describe(result) for result in failed))
        names = dict.fromkeys(
            f"--waive '{r.gate}{f':{r.slice}' if r.slice else ''}=REASON'" for r in failed
        )
        raise RefusedByGate(f"{told}. Improve the model or its evidence, or add {' '.join(names)}")


def describe(result: GateResult) -> str:
    """One gate in a few words."""
    where = f" on {result.slice}" if result.slice else ""
    if result.outcome == "no_evidence":
        return f"gate {result.gate}{where} has no evidence ({result.rows} test rows)"
    target = f" of {result.target}" if result.target else ""
    return f"gate {result.gate}{target}{where}: {result.value:.4g}, limit {result.threshold:.4g}"


def parse_waiver(text: str) -> Waiver:
    """Parse ``GATE[:SLICE]=REASON``, where SLICE is ``name=value``."""
    gate, _, rest = text.partition(":")
    if "=" in gate:
        gate, _, reason = text.partition("=")
        return _waiver(gate, None, reason)
    name, _, rest = rest.partition("=")
    value, _, reason = rest.partition("=")
    return _waiver(gate, f"{name}={value}", reason)


def _waiver(gate: str, slice_: str | None, reason: str) -> Waiver:
    if len(reason.strip()) < 8:
        raise WrongUse(
            f"--waive {gate} needs a reason of at least 8 letters: "
            "--waive 'GATE=REASON' or --waive 'GATE:name=value=REASON'"
        )
    return Waiver(gate=gate, slice=slice_, reason=reason.strip())


def _at_most(gate: str, value: float, threshold: float, target: str | None) -> GateResult:
    outcome = "passed" if value <= threshold + 1e-12 else "failed"
    return GateResult(
        gate=gate,
        outcome=outcome,  # type: ignore[arg-type]  # one of two literals
        target=target,
        value=value,
        threshold=threshold,
    )


def _at_least(gate: str, value: float, threshold: float, target: str | None) -> GateResult:
    outcome = "passed" if value >= threshold - 1e-12 else "failed"
    return GateResult(
        gate=gate,
        outcome=outcome,  # type: ignore[arg-type]  # one of two literals
        target=target,
        value=value,
        threshold=threshold,
    )


def _on_slice(
    gate: str,
    name: str,
    rows: int,
    needed: int,
    loss: Callable[[str], float],
    threshold: float,
    target: str | None,
) -> GateResult:
    if rows < needed:
        return GateResult(
            gate=gate,
            outcome="no_evidence",
            target=target,
            slice=name,
            threshold=threshold,
            rows=rows,
            detail=f"needs {needed} test rows",
        )
    result = _at_most(gate, loss(f"accuracy/{name}"), threshold, target)
    return msgspec.structs.replace(result, slice=name, rows=rows)
