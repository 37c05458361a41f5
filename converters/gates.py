"""Thresholds that a bundle has to pass. A slice without rows is "no evidence", never a pass."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from converters.data.dataset import Rows
from converters.leakage import Sign
from converters.recipe import Recipe
from converters.refusal import RefusedByGate, WrongUse
from converters.suspicion import FeatureScore
from converters.targets.profile import Limits
from edge_core.bundle.manifest import Budget, GateResult, VariantRecord, Waiver

Bool = npt.NDArray[np.bool_]
ROUNDING = 1e-12


def slices_of(recipe: Recipe, rows: Rows) -> dict[str, Bool]:
    """Declared slices as ``name=value`` -> bool [rows]."""
    return {
        f"{name}={value}": rows.mask(name, value)
        for name, values in recipe.slices.items()
        for value in values
    }


def judge_variant(
    recipe: Recipe,
    record: VariantRecord,
    floating: Mapping[str, float],
    slices: Mapping[str, Bool],
    limits: Limits,
) -> list[GateResult]:
    """Gates of one variant against the fp32 model and its target's limits."""
    target, own = record.target, record.metrics
    results = [
        _judged("numeric_error", record.numeric_error, recipe.gates.numeric_error, target=target),
        _judged(
            "top1_agreement",
            record.top1_agreement,
            recipe.gates.top1_agreement,
            target=target,
            least=True,
        ),
        _judged("misplaced", _misplaced(record), 0.0, target=target),
        *_embedding(recipe, record),
        *_costs(record, limits, recipe.budget),
    ]
    primary = recipe.metrics[0]
    drop = floating[primary] - own[primary] if own else None
    results.append(_judged("metric_drop", drop, recipe.gates.metric_drop, target=target))
    for name, mask in slices.items():
        results.append(
            _on_slice(
                "metric_drop",
                name,
                _loss(floating, own, f"{primary}/{name}"),
                recipe.gates.metric_drop_slice,
                rows=int(mask.sum()),
                needed=recipe.gates.min_slice_rows,
                target=target,
            )
        )
    return results


def _embedding(recipe: Recipe, record: VariantRecord) -> list[GateResult]:
    """What the variant's second output is off by, where one is declared."""
    declared, shown = recipe.embedding, record.embedding
    if declared is None or isinstance(shown, msgspec.UnsetType):
        return []
    limit = declared.numeric_error
    return [_judged("embedding_error", shown.numeric_error, limit, target=record.target)]


def _costs(record: VariantRecord, limits: Limits, budget: Budget | None) -> list[GateResult]:
    """Budgets of recipe and target, where a figure was measured or the target's tool gave one."""
    latency = record.latency_us.get("1", record.estimate.get("latency_us"))
    figures = dict(record.estimate)
    if latency is not None:
        figures["latency_us"] = latency
    allowed: dict[str, list[float | None]] = {
        "latency_us": [budget.latency_us if budget else None, limits.latency_us],
        "arena_bytes": [limits.arena_bytes],
        "sram_bytes": [limits.sram_bytes],
        "flash_bytes": [limits.flash_bytes],
        "cost_per_million": [budget.cost_per_million if budget else None],
    }
    return [
        _judged(name, figures[name], min(known), target=record.target)
        for name, limits_ in allowed.items()
        if name in figures and (known := [limit for limit in limits_ if limit is not None])
    ]


def judge_conversion(record: VariantRecord, limits: Limits, error: float) -> list[GateResult]:
    """Gates of a variant of which no labels are known.

    Args:
        record: what was measured.
        limits: of its target.
        error: largest numeric error allowed.
    """
    target = record.target
    return [
        _judged("numeric_error", record.numeric_error, error, target=target),
        _judged("misplaced", _misplaced(record), 0.0, target=target),
        *_costs(record, limits, None),
    ]


def judge_release(
    recipe: Recipe,
    own: Mapping[str, float],
    baseline: Mapping[str, float],
    size: int,
) -> list[GateResult]:
    """Gates of the whole release: the baseline and the size."""
    primary = recipe.metrics[0]
    below = baseline[primary] - own[primary]
    return [
        _judged("below_baseline", below, recipe.gates.below_baseline),
        _judged("size_bytes", float(size), float(recipe.budget.size_bytes)),
    ]


def judge_fine_tuning(recipe: Recipe, after: Mapping[str, float]) -> list[GateResult]:
    """What int8 costs against the model as it was before fine-tuning, which moves the float one.

    Args:
        recipe: holds the thresholds.
        after: ``metric_drop`` overall and by slice.
    """
    limits = recipe.gates
    results = []
    for name, drop in after.items():
        _, _, slice_ = name.partition("/")
        limit = limits.metric_drop_slice if slice_ else limits.metric_drop
        result = _judged("drop_before_tuning", drop, limit)
        results.append(msgspec.structs.replace(result, slice=slice_ or None))
    return results


def judge_against_teacher(
    recipe: Recipe, own: Mapping[str, float], teacher: Mapping[str, float]
) -> GateResult:
    """How far a distilled student lies below its teacher."""
    primary = recipe.metrics[0]
    return _judged("below_teacher", teacher[primary] - own[primary], recipe.gates.below_teacher)


def judge_against_parent(
    recipe: Recipe,
    own: Mapping[str, float],
    parent: Mapping[str, float] | None,
    slices: Mapping[str, Bool],
    gate: str = "below_parent",
) -> list[GateResult]:
    """No worse than the incumbent on the same rows, overall and on any slice.

    Args:
        recipe: holds the margins.
        own: the release's figures.
        parent: the incumbent's on the same rows; none where it cannot answer them.
        slices: name -> bool [rows].
        gate: what the results are called.
    """
    primary, limits = recipe.metrics[0], recipe.gates
    drop = None if parent is None else parent[primary] - own[primary]
    results = [_judged(gate, drop, limits.below_parent)]
    for name, mask in slices.items():
        results.append(
            _on_slice(
                gate,
                name,
                _loss(parent or {}, own, f"{primary}/{name}"),
                limits.below_parent_slice,
                rows=int(mask.sum()),
                needed=limits.min_slice_rows,
            )
        )
    return results


def judge_suspicion(
    recipe: Recipe, own: Mapping[str, float], area: float | None, alone: FeatureScore
) -> list[GateResult]:
    """Results too good to be true: near perfect, or reached by one feature alone.

    Args:
        recipe: holds the thresholds.
        own: the release's figures.
        area: under the release's ROC curve; none where nothing ran it.
        alone: what the best single feature reaches.
    """
    limits = recipe.gates
    near = _judged("near_perfect", own[recipe.metrics[0]], limits.suspicious_score)
    lead = None if area is None else area - alone.score
    single = _judged("single_feature", lead, limits.single_feature, least=True)
    detail = f"{alone.name} alone reaches an area under the ROC curve of {alone.score:.3f}"
    return [near, msgspec.structs.replace(single, detail=detail)]


def judge_leakage(recipe: Recipe, signs: Sequence[Sign]) -> list[GateResult]:
    """Signs that a model of requests knows its answers."""
    limits = {
        "row_overlap": 0.0,
        "time_overlap": 0.0,
        "label_derived": recipe.gates.label_derived,
        "one_event_older": recipe.gates.one_event_older,
        "random_split": recipe.gates.random_split,
    }
    return [
        msgspec.structs.replace(
            _judged(sign.gate, sign.value, limits[sign.gate]), detail=sign.detail
        )
        for sign in signs
    ]


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
    target = f" of {result.target}" if result.target else ""
    if result.outcome == "no_evidence" and result.rows is not None:
        return f"gate {result.gate}{where} has no evidence ({result.rows} test rows)"
    if result.outcome == "no_evidence":
        return f"gate {result.gate}{target} has no evidence: nothing here showed it"
    told = f"gate {result.gate}{target}{where}: {result.value:.4g}, limit {result.threshold:.4g}"
    return f"{told} ({result.detail})" if result.detail else told


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


def _judged(
    gate: str,
    value: float | None,
    threshold: float,
    *,
    target: str | None = None,
    least: bool = False,
) -> GateResult:
    """Compare with an upper threshold, or a lower one where ``least``; none is no evidence."""
    outcome: Literal["passed", "failed", "no_evidence"] = "no_evidence"
    if value is not None:
        within = value >= threshold - ROUNDING if least else value <= threshold + ROUNDING
        outcome = "passed" if within else "failed"
    return GateResult(gate=gate, outcome=outcome, target=target, value=value, threshold=threshold)


def _misplaced(record: VariantRecord) -> float | None:
    """How many operators run elsewhere; none where no tool tells."""
    return float(len(record.misplaced)) if record.placement else None


def _loss(before: Mapping[str, float], own: Mapping[str, float], key: str) -> float | None:
    return before[key] - own[key] if key in before and key in own else None


def _on_slice(
    gate: str,
    name: str,
    loss: float | None,
    threshold: float,
    *,
    rows: int,
    needed: int,
    target: str | None = None,
) -> GateResult:
    enough = rows >= needed
    result = _judged(gate, loss if enough else None, threshold, target=target)
    detail = "" if enough else f"needs {needed} test rows"
    return msgspec.structs.replace(result, slice=name, rows=rows, detail=detail)
