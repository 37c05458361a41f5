"""Evaluators with one deliberate fault each, such as a device's software could have."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from edge_core.features.entities import MISSING, Entity, Key, Store
from edge_core.features.evaluation import Evaluator, Float32, Int32
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Stream
from edge_core.features.rows import Rows
from edge_core.features.single import Single
from tests.simulators.tiny_requests import SECOND


class SeesThisMoment(Store):
    """The window holds the current event, too."""

    def read(self, key: Key, now_us: int) -> list[float | None]:
        return super().read(key, now_us + 1)


class LongerWindow(Store):
    """The window begins one second too early."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.within_us = [within + SECOND for within in self.within_us]
        self.longest_us += SECOND


class FloatSums(Store):
    """Sums are added up in float32, value by value, of a weight in pounds."""

    def read(self, key: Key, now_us: int) -> list[float | None]:
        found = list(super().read(key, now_us))
        entity = self.held.get(key)
        for place, (feature, lsb) in enumerate(self.features):
            if entity is not None and feature.name == "weight_sum" and found[place] is not None:
                found[place] = _float_sum(entity, self.fields.index("weight"), now_us, lsb)
        return found


def _float_sum(entity: Entity, field: int, now_us: int, lsb: float) -> float:
    total = np.float32(0)
    for time, value in zip(entity.times, entity.fields[field], strict=True):
        if now_us - 60 * SECOND <= time < now_us and isinstance(value, int) and value != MISSING:
            total += np.float32(value * lsb / 0.45359237)
    return float(total * np.float32(0.45359237))


def with_store(kind: type[Store]) -> Callable[[RequestDefinition], RequestEvaluator]:
    """An evaluator whose stores are of this kind."""

    def make(definition: RequestDefinition) -> RequestEvaluator:
        evaluator = RequestEvaluator(definition)
        streams: dict[str, Stream] = {stream.name: stream for stream in definition.streams}
        for place, grouped in enumerate(evaluator._stores):
            features = [feature for feature, _ in grouped.store.features]
            store = kind(streams[grouped.stream], grouped.store.by, features)
            evaluator._stores[place] = grouped._replace(store=store)
        return evaluator

    return make


class _OtherRows(RequestEvaluator):
    """Values of one kind of row operation come from another definition."""

    def __init__(self, definition: RequestDefinition, other: RequestDefinition) -> None:
        super().__init__(definition)
        self._rows = Rows(other)
        self._single = Single(other, self._rows)


def with_rows(**changes: Any) -> Callable[[RequestDefinition], RequestEvaluator]:
    """An evaluator that computes one feature as if the definition said something else of it."""
    name = changes.pop("name")

    def make(definition: RequestDefinition) -> RequestEvaluator:
        features = tuple(
            msgspec.structs.replace(feature, **changes) if feature.name == name else feature
            for feature in definition.features
        )
        return _OtherRows(definition, msgspec.structs.replace(definition, features=features))

    return make


class FloatMeans(Evaluator):
    """Means of samples in float32."""

    def evaluate(self, quantised: Int32) -> Float32:
        found = super().evaluate(quantised).copy()
        found[:, 0] = (quantised[:, :, 0] * 2**-10 / 3).astype(np.float32).mean(axis=1) * 3
        return found


class ShiftedWindow(Evaluator):
    """The window is one sample behind on its second channel."""

    def evaluate(self, quantised: Int32) -> Float32:
        shifted = quantised.copy()
        shifted[:, :, 1] = np.roll(quantised[:, :, 1], 1, axis=1)
        shifted[:, 0, 1] = 0
        return super().evaluate(shifted)
