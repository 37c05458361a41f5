"""From what variants answered to records and gates. No files, no tools."""

from dataclasses import dataclass

import msgspec
import numpy as np

from converters import gates, metrics, suspicion
from converters.data.dataset import Float32, Rows, Snapshot
from converters.evidence import Evidence
from converters.gates import Bool
from converters.parity import golden_tolerance, numeric_error, top1_agreement
from converters.recipe import Recipe
from converters.scoring import Scorer
from converters.variants import Variant
from edge_core.bundle.manifest import EmbeddingRecord, GateResult, Manifest, VariantRecord
from edge_core.stats.projection import EMBEDDING


@dataclass(frozen=True, kw_only=True, slots=True)
class Floating:
    """One of the fp32 model's outputs, float32 [rows, columns] each."""

    train: Float32
    test: Float32
    golden: Float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A variant, its record, and its logits where it was run."""

    variant: Variant
    record: VariantRecord
    test: Float32 | None
    golden: Float32 | None
    embedding: Float32 | None = None
    """Of the golden rows, float32 [rows, coordinates]; none where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Test-set figures beside the variants' own."""

    floating: dict[str, float]
    fallback: dict[str, float]
    parent: dict[str, float] | None
    """None where the parent cannot answer these rows."""


def show(
    variant: Variant,
    scorer: Scorer,
    floating: Floating,
    output: str,
    embedded: Floating | None = None,
) -> Shown:
    """Compare a variant's answers with the fp32 model's.

    Args:
        variant: tried on test rows and then golden rows.
        scorer: of the test rows.
        floating: the fp32 model's answers to the same rows.
        output: name of the output that holds logits.
        embedded: as ``floating``, of the second output; none where there is none.
    """
    outputs = variant.tried.outputs
    if outputs is None:
        bare = record(variant)
        if embedded is not None:
            unseen = EmbeddingRecord(numeric_error=None, tolerance=0.0)
            bare = msgspec.structs.replace(bare, embedding=unseen)
        return Shown(variant=variant, record=bare, test=None, golden=None)
    test, golden = outputs[output][: len(floating.test)], outputs[output][len(floating.test) :]
    found = msgspec.structs.replace(
        record(variant),
        numeric_error=numeric_error(floating.test, test),
        top1_agreement=top1_agreement(floating.test, test),
        tolerance=golden_tolerance(golden),
        metrics=scorer.score(test),
    )
    if embedded is None:
        return Shown(variant=variant, record=found, test=test, golden=golden)
    answers, tested = outputs[EMBEDDING], len(embedded.test)
    seen = EmbeddingRecord(
        numeric_error=numeric_error(embedded.test, answers[:tested]),
        tolerance=golden_tolerance(answers[tested:]),
    )
    return Shown(
        variant=variant,
        record=msgspec.structs.replace(found, embedding=seen),
        test=test,
        golden=golden,
        embedding=answers[tested:],
    )


def record(variant: Variant) -> VariantRecord:
    """What is known without answers."""
    profile, tried, source = variant.profile, variant.tried, variant.compiled.source
    latency = tried.latency_us.get("1", tried.estimate.figures.get("latency_us"))
    estimate = dict(tried.estimate.figures)
    if profile.cost_per_hour is not None and latency is not None:
        estimate["cost_per_million"] = latency / 3.6e9 * 1e6 * profile.cost_per_hour
    return VariantRecord(
        target=profile.target,
        runtime=profile.runtime,
        path=f"variants/{profile.target}/{profile.file}",
        quantization=dict(source.settings),
        providers=profile.providers or msgspec.UNSET,
        float_layers=list(source.float_layers),
        layer_errors=variant.layer_errors,
        scaling=source.scaling,
        placement=dict(tried.placement.operators),
        misplaced=list(tried.placement.misplaced),
        numeric_error=None,
        top1_agreement=None,
        tolerance=0.0,
        latency_us=tried.latency_us,
        measured_on=tried.by,
        ran_on_hardware=tried.on_hardware,
        estimate=estimate,
        estimated_by=tried.estimate.by,
        compiled_by=variant.compiled_by,
        size_ratio=len(variant.compiled.data) / variant.float_bytes,
    )


def judge(
    recipe: Recipe, snapshot: Snapshot, shown: list[Shown], scores: Scores, slices: dict[str, Bool]
) -> list[GateResult]:
    """All gates of a release; waivers are not looked at.

    Args:
        recipe: holds the thresholds.
        snapshot: the rows, to see what one feature alone would reach.
        shown: every variant.
        scores: of the fp32 model, the fallback and the parent.
        slices: name -> bool [test rows].
    """
    results: list[GateResult] = []
    for one in shown:
        limits = one.variant.profile.limits
        results += gates.judge_variant(recipe, one.record, scores.floating, slices, limits)
    size = max(len(one.variant.compiled.data) for one in shown)
    own = own_figures(shown)
    results += gates.judge_release(recipe, own, scores.fallback, size)
    train, test = snapshot.rows["train"], snapshot.rows["test"]
    raw = recipe.input == "samples"  # it sees channels of which no feature is made
    names = snapshot.definition.feature_names
    alone = suspicion.single_feature(
        with_channel_means(train) if raw else train.features,
        train.labels,
        with_channel_means(test) if raw else test.features,
        test.labels,
        names=names + [f"mean of {one}" for one in snapshot.definition.input_names if raw],
    )
    answered = next((one.test for one in shown if one.test is not None), None)
    area = None if answered is None else metrics.roc_auc(answered, test.labels)
    return results + gates.judge_suspicion(recipe, own, area, alone)


def with_channel_means(rows: Rows) -> Float32:
    """Features and the mean of each raw input, float32 [rows, features + inputs]."""
    missing = np.isnan(rows.samples)
    counts = np.maximum((~missing).sum(axis=1), 1)
    means = np.where(missing, 0.0, rows.samples).sum(axis=1) / counts
    return np.concatenate([rows.features, means.astype(np.float32)], axis=1)


def own_figures(shown: list[Shown]) -> dict[str, float]:
    """Those of the first variant that was run; the release goes by them."""
    return next((one.record.metrics for one in shown if one.record.metrics), {})


def evidence(manifest: Manifest, scorer: Scorer, shown: list[Shown], scores: Scores) -> Evidence:
    """For the card and its plots."""
    logits = next((one.test for one in shown if one.test is not None), None)
    return Evidence(
        manifest=manifest,
        floating=scores.floating,
        fallback=scores.fallback,
        confusion={} if logits is None else scorer.confusion(logits),
    )
