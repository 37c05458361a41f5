"""Ordinary architectures on int8-only targets: served, or refused by operator and module."""

import time

import numpy as np
import pytest

from converters.cache import Cache
from converters.converting import Asked, Compile, Export, Model, Quantise, ToCompile, ToQuantise
from converters.floating import FloatModel
from converters.pipeline import Pipeline, Quiet
from converters.quantising import Wanted
from converters.refusal import StageFailed
from converters.targets import open_target
from converters.targets.target import Compiled, Target
from converters.tensors import Array, TensorSpec, take
from tests.converters.corpus import CORPUS, Example

TARGETS = ("mcu-tflm", "npu-ethos-u55-128")


class Given:
    """A corpus member as a source that is in memory already."""

    def __init__(self, name: str, model: FloatModel) -> None:
        self._name = name
        self._model = model

    def digest(self) -> str:
        return f"{self._name} {self._model.digest()}"

    def load(self) -> FloatModel:
        return self._model


def drawn(spec: TensorSpec, example: Example, rows: int) -> Array:
    """Rows like the example's: whole numbers stay within what it shows."""
    draw = np.random.default_rng(23)
    shown = example.feeds[spec.name]
    if spec.dtype == "float32":
        return draw.normal(size=(rows, *spec.shape)).astype(np.float32)
    return draw.integers(0, int(shown.max()) + 1, (rows, *spec.shape)).astype(spec.dtype)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(Quiet(), time.monotonic, Cache(tmp_path_factory.mktemp("cache")))


def compiled(name: str, target: Target, pipeline: Pipeline) -> tuple[Compiled, dict[str, Array]]:
    example = CORPUS[name]()
    rows = {spec.name: drawn(spec, example, 96) for spec in example.model.inputs}
    few = dict(take(rows, range(8)))
    asked = Asked(model=Model(source=Given(name, example.model)), feeds=few)
    floats = pipeline.run(Export("tflite without scaling"), asked)
    wanted = Wanted(scheme="int8 static", method="min/max", io="int8", batch="one")
    given = ToQuantise(file=floats, calibration=rows, wanted=wanted, limit=0.0)
    quantised = pipeline.run(Quantise(), given)
    return pipeline.run(Compile(), ToCompile(target=target, file=quantised)), rows


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CORPUS)
def test_it_is_served_or_refused_by_name(name: str, target: str, pipeline: Pipeline) -> None:
    opened = open_target(target)
    try:
        made, rows = compiled(name, opened, pipeline)
    except StageFailed as refused:
        told = str(refused)
        assert "\n" not in told
        # An operator is written in capitals, as LiteRT calls it.
        assert any(word.isupper() and len(word) > 2 for word in told.replace(",", " ").split()), (
            told
        )
        return
    placed = opened.placement(made)
    assert placed.operators
    few = take(rows, range(8))
    ran = opened.run(made, few, measure=False)
    assert ran is not None
    reference = CORPUS[name]().model.run(few)
    for output, expected in reference.items():
        spread = float(expected.std()) or 1.0
        error = float(np.sqrt(np.mean((ran.outputs[output] - expected) ** 2))) / spread
        assert error <= 0.12, f"{output}: {error:.3f}"
