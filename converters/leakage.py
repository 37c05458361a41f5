"""Signs that a model of requests knows its answers: from the label, from the future, from its test.

Source: Kaufman et al., "Leakage in Data Mining" (2012). A sign is no proof: each is a gate that a
person may waive with a reason.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters import fallback, metrics
from converters.data.dataset import Rows, Snapshot
from converters.recipe import FallbackRecipe
from edge_core.features import columns
from edge_core.features.columns import Given
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Answer = Callable[[Float32], Float32]
"""The model: features float32 [rows, features] -> logits float32 [rows, classes]."""

SAMPLED = 4000
"""Rows on which features are looked at one by one."""
SPLIT_ROWS = 20_000
"""Rows of each of the two splits that are compared."""
KEYED = 3
"""Categories of a request of which all combinations are tried as an entity's key."""
LEAST_PAIRS = 200
"""Pairs of neighbouring requests that a correlation needs."""


class Sign(NamedTuple):
    """How strong one sign is."""

    gate: str
    value: float
    detail: str


class Move(NamedTuple):
    """How much a feature moves with the label from one request of an entity to the next."""

    name: str
    correlation: float


def signs(snapshot: Snapshot, answer: Answer) -> list[Sign]:
    """Look at a snapshot of requests, and at a model that was trained on it.

    Args:
        snapshot: made from a log.
        answer: the model.
    """
    definition = snapshot.definition
    assert isinstance(definition, RequestDefinition)
    train, test = snapshot.rows["train"], snapshot.rows["test"]
    return [
        Sign("row_overlap", float(shared_rows(train, test)), "test rows that training holds, too"),
        Sign(
            "time_overlap",
            float(int((train.times_us >= test.times_us[0]).sum())),
            "training rows that are not before the first test row",
        ),
        _label_derived(definition, snapshot),
        _one_event_older(definition, snapshot, answer),
        _random_split(snapshot),
    ]


def shared_rows(train: Rows, test: Rows) -> int:
    """Number of test rows of which training holds the same moment, inputs and label."""
    known = set(_marks(train))
    return sum(mark in known for mark in _marks(test))


def _marks(rows: Rows) -> list[bytes]:
    parts = (rows.times_us, rows.labels, rows.features)
    stacked = [np.ascontiguousarray(part).view(np.uint8).reshape(len(rows), -1) for part in parts]
    return [row.tobytes() for row in np.concatenate(stacked, axis=1)]


def _label_derived(definition: RequestDefinition, snapshot: Snapshot) -> Sign:
    assert snapshot.log is not None
    train = snapshot.rows["train"]
    keys = list(entity_keys(definition, columns.taken(snapshot.log.request, train.places)))
    found = max(
        (
            strongest_move(train.features, train.labels, key, definition.feature_names)
            for key in keys
        ),
        key=lambda move: move.correlation,
    )
    return Sign(
        "label_derived",
        found.correlation,
        f"{found.name} moves with the label of its own row, as if it were computed from it",
    )


def entity_keys(definition: RequestDefinition, request: Given) -> Sequence[Int64]:
    """Ways in which requests may belong to entities: numbers int64 [rows], one array a way."""
    names = [field.name for field in definition.request.fields if isinstance(field, Category)]
    coded = [np.unique(np.array(request[name], np.str_), return_inverse=True)[1] for name in names]
    sizes = range(1, len(coded) + 1) if len(coded) <= KEYED else (1, len(coded))
    ways = [chosen for size in sizes for chosen in itertools.combinations(coded, size)]
    times = np.asarray(request[definition.request.time])
    return [np.zeros(len(times), np.int64), *(_joint(chosen) for chosen in ways)]


def _joint(codes: Sequence[Int64]) -> Int64:
    return np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def strongest_move(features: Float32, labels: Int64, entities: Int64, names: Sequence[str]) -> Move:
    """The feature whose change since the entity's request before goes with its own label most.

    An average that holds the current row moves by that row's label. One that ends before it moves
    by the label before. So the correlation of change and label counts where it exceeds that of the
    value itself and the label, which is what any useful feature has.

    Args:
        features: float32 [rows, features], in order of time.
        labels: class numbers, int64 [rows].
        entities: int64 [rows].
        names: of the features.
    """
    order = np.argsort(entities, kind="stable")
    before, after = order[:-1], order[1:]
    same = entities[before] == entities[after]
    before, after = before[same], after[same]
    if len(after) < LEAST_PAIRS:
        return Move(names[0], 0.0)
    best = Move(names[0], 0.0)
    for place in range(1 if labels.max() == 1 else 0, int(labels.max()) + 1):
        mine = (labels[after] == place).astype(np.float64)
        changes = features[after].astype(np.float64) - features[before]
        moved = np.abs(_correlations(changes, mine))
        level = np.abs(_correlations(features[after].astype(np.float64), mine))
        moved = np.where(moved > level, moved, 0.0)
        if moved.max() > best.correlation:
            best = Move(names[int(moved.argmax())], float(moved.max()))
    return best


def _correlations(values: Float64, other: Float64) -> Float64:
    """Of each column with another, float64 [columns]; 0 for what is constant."""
    centred, against = values - values.mean(axis=0), other - other.mean()
    scale = np.sqrt((centred**2).sum(axis=0) * (against**2).sum())
    found: Float64 = (against @ centred) / np.where(scale == 0, 1.0, scale)
    return found


def _one_event_older(definition: RequestDefinition, snapshot: Snapshot, answer: Answer) -> Sign:
    """What the score loses when each feature knows one event less."""
    assert snapshot.log is not None
    test = snapshot.rows["test"]
    older = aged(definition, snapshot)
    lost = metrics.roc_auc(answer(test.features), test.labels)
    lost -= metrics.roc_auc(answer(older), test.labels)
    rows = np.unique(np.linspace(0, len(test) - 1, SAMPLED).astype(np.int64))
    labels, now = test.labels[rows], test.features[rows]
    best, most = "no feature", 0.0
    score = metrics.roc_auc(answer(now), labels)
    for column, name in enumerate(definition.feature_names):
        changed = now.copy()
        changed[:, column] = older[rows, column]
        drop = score - metrics.roc_auc(answer(changed), labels)
        if drop > most:
            best, most = name, drop
    return Sign("one_event_older", lost, f"{best} is most of it")


def aged(definition: RequestDefinition, snapshot: Snapshot) -> Float32:
    """Features of the test rows without each entity's newest event.

    What a request says of itself is no event; a number in it that was computed with its own label
    is for ``label_derived`` to find.

    Returns:
        float32 [test rows, features].
    """
    assert snapshot.log is not None
    evaluator = RequestEvaluator(definition, behind=1)
    features = evaluator.replay(snapshot.log.events, snapshot.log.request)
    return features[snapshot.rows["test"].places]


def _random_split(snapshot: Snapshot) -> Sign:
    """How much better a simple model does when training rows lie among the test rows."""
    train, test = snapshot.rows["train"], snapshot.rows["test"]
    draw = np.random.default_rng(0)
    half = SPLIT_ROWS // 2
    ordered = _simple_score(snapshot, _drawn(train, half, draw), _drawn(test, half, draw))
    both = _together(_drawn(train, half, draw), _drawn(test, half, draw))
    mixed = draw.permutation(len(both))
    first, second = np.array_split(mixed, 2)
    among = _simple_score(snapshot, both.only(first), both.only(second))
    return Sign(
        "random_split",
        among - ordered,
        f"a linear model reaches {among:.3f} on a random split, {ordered:.3f} on one by time",
    )


def _drawn(rows: Rows, count: int, draw: np.random.Generator) -> Rows:
    return rows.only(np.sort(draw.permutation(len(rows))[:count]))


def _together(one: Rows, other: Rows) -> Rows:
    changes: Mapping[str, Any] = {
        name: np.concatenate([getattr(one, name), getattr(other, name)])
        for name in ("samples", "features", "labels", "times_us", "places")
    }
    return Rows(**changes, slices={}, entities=())


def _simple_score(snapshot: Snapshot, train: Rows, test: Rows) -> float:
    names = snapshot.definition.feature_names
    everything = FallbackRecipe(features=names, l2=1e-3)
    simple = fallback.fit(snapshot.definition, train, len(snapshot.classes), everything)
    return metrics.roc_auc(simple.logits(test.features, names), test.labels)
