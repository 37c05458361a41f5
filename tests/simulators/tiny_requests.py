"""A small, complete and true bundle whose features are those of requests.

Parcels arrive at places; a request asks how a place will be. Six features over one stream of events
and three classes; the model is one Gemm whose weights are written by hand.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core import baseline, outputs
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.golden import Golden
from edge_core.bundle.manifest import Privacy
from edge_core.features import definition as definitions
from edge_core.features import logs
from edge_core.features.carried import Zone
from edge_core.features.logs import Events, Log
from edge_core.features.over_rows import Field, TimePart
from edge_core.features.over_time import (
    CountWithin,
    DistinctWithin,
    MeanWithin,
    SumWithin,
    TimeSince,
)
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time
from edge_core.stats import histogram
from tests.simulators import tiny_bundle
from tests.simulators.tiny_bundle import TARGET

CLASSES = ["calm", "busy", "full"]
BY = {"place": "place"}
SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND
"""When every log here begins: 22:13:20 UTC, 23:13:20 in the definition's zone."""


def define(keep: Keep = Keep(entities=64, events=4096), **changes: Any) -> RequestDefinition:  # noqa: B008  # immutable
    """The definition, or one like it."""
    plain: dict[str, Any] = {
        "request": Request(
            time="at",
            fields=[
                Time(name="at"),
                Category(name="place"),
                Number(name="size", unit="kg", lsb=0.25, low=0, high=100, null_policy="keep"),
            ],
        ),
        "streams": (
            Stream(
                name="parcels",
                fields=[
                    Category(name="place"),
                    Category(name="kind", null_policy="keep"),
                    Number(name="weight", unit="kg", lsb=0.125, low=0, high=50, null_policy="keep"),
                ],
                keep=keep,
                max_ahead_s=1,
            ),
        ),
        "zones": (Zone(name="here", first_offset_s=3600, until_s=4_000_000_000),),
        "features": (
            CountWithin(name="count", stream="parcels", by=BY, within_s=60),
            SumWithin(
                name="weight_sum", stream="parcels", by=BY, within_s=60, field="weight", default=0
            ),
            MeanWithin(
                name="weight_mean", stream="parcels", by=BY, within_s=30, field="weight", default=-1
            ),
            TimeSince(name="since", stream="parcels", by=BY, within_s=60, default=60),
            DistinctWithin(name="kinds", stream="parcels", within_s=60, field="kind", default=0),
            TimePart(name="hour", input="at", part="hour", zone="here"),
            Field(name="heft", input="size", default=1),
        ),
    }
    return RequestDefinition(**(plain | changes))


DEFINITION = define()
WEIGHTS = np.zeros((7, 3), np.float32)
WEIGHTS[0] = [-0.5, 0.25, 0.5]
WEIGHTS[1] = [-0.02, 0.0, 0.02]
WEIGHTS[3] = [0.05, 0.0, -0.05]
BIAS = np.array([1.0, 0.5, -2.0], np.float32)


class Story(NamedTuple):
    """A log in order of arrival, to be told to an agent or to an evaluator."""

    events: Events
    request: dict[str, Any]


def story(events: int = 200, requests: int = 60, *, seed: int = 0, places: int = 5) -> Story:
    """Events and requests of five minutes; some events come late, some miss a value."""
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.integers(0, 300 * SECOND, events)) + BEGIN
    delay = rng.choice([0, 0, 0, SECOND, 20 * SECOND], events)
    kinds = [["box", "bag", "roll", None][kind] for kind in rng.integers(0, 4, events)]
    weight = np.where(rng.random(events) < 0.1, np.nan, rng.uniform(0, 60, events))
    asked = np.sort(rng.integers(0, 300 * SECOND, requests)) + BEGIN
    sizes = np.where(rng.random(requests) < 0.1, np.nan, rng.uniform(0, 80, requests))
    return Story(
        Events(
            arrived - delay,
            np.arange(events),
            arrived,
            {
                "place": [f"p{place}" for place in rng.integers(0, places, events)],
                "kind": kinds,
                "weight": weight.astype(np.float32),
            },
        ),
        {
            "at": asked,
            "place": [f"p{place}" for place in rng.integers(0, places + 1, requests)],
            "size": sizes.astype(np.float32),
        },
    )


def tiny_requests(
    folder: Path,
    *,
    version: str = "1.0.0",
    seed: int = 0,
    sign_with: Path | None = None,
    model: str = "tiny-parcels",
    definition: RequestDefinition = DEFINITION,
    golden: bytes | None = None,
    privacy: Privacy | None = None,
) -> Path:
    """Write the bundle into ``folder``; arguments as for :func:`tiny_bundle.tiny_bundle`."""
    rng = np.random.default_rng(seed)
    weights = (WEIGHTS + rng.normal(0, 0.01, WEIGHTS.shape)).astype(np.float32)
    model_file = tiny_bundle.one_gemm(weights, BIAS)
    files = {f"variants/{TARGET}/model.onnx": model_file}
    files |= _evidence(definition, weights, seed, model_file)
    if golden is not None:
        files[manifests.GOLDEN] = golden
    description = "Tells how a place will be."
    return tiny_bundle.write(
        folder, files, model, version, seed, sign_with, CLASSES, description, privacy
    )


def golden_of(definition: RequestDefinition, model_file: bytes, seed: int) -> Golden:
    """A log of its own and what it gives."""
    log = story(80, 16, seed=seed + 100)
    events = {"parcels": log.events}
    features = RequestEvaluator(definition).replay(events, log.request)
    logits = tiny_bundle.run(model_file, features)
    return Golden(Log(events, log.request), features, {TARGET: logits})


def _evidence(
    definition: RequestDefinition, weights: npt.NDArray[np.float32], seed: int, model_file: bytes
) -> dict[str, bytes]:
    log = story(seed=seed)
    features = RequestEvaluator(definition).replay({"parcels": log.events}, log.request)
    scores = outputs.probabilities(tiny_bundle.run(model_file, features))
    raw = logs.numbers(definition, log.request)
    reference = histogram.build(
        inputs={n: raw[:, :, i].ravel() for i, n in enumerate(definition.input_names)},
        features={n: features[:, i] for i, n in enumerate(definition.feature_names)},
        confidence=scores.max(axis=1),
        predicted=scores.argmax(axis=1),
        classes=len(CLASSES),
    )
    simple = baseline.LogisticBaseline(
        features=definition.feature_names,
        mean=[0.0] * 7,
        scale=[1.0] * 7,
        weights=(weights / 2).astype(float).tolist(),
        bias=(BIAS / 2).astype(float).tolist(),
    )
    return {
        manifests.FEATURES: definitions.serialize(definition),
        manifests.REFERENCE: histogram.serialize(reference),
        manifests.GOLDEN: goldens.pack(golden_of(definition, model_file, seed)),
        manifests.FALLBACK: baseline.serialize(simple),
        manifests.CARD: b"# tiny-parcels\n\nTells how a place will be.\n",
    }
