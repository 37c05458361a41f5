"""Quantisation-aware fine-tuning as a stage: only where plain static int8 misses its gates."""

import hashlib
from dataclasses import dataclass

import msgspec

from converters.data.dataset import Float32
from converters.floating import FloatModel
from converters.quantising import Wanted, quantise
from converters.recipe import Recipe
from converters.scoring import Scorer
from converters.source import RecipeSource
from converters.stage import StoredStage
from converters.tensors import Feeds
from converters.training import model_rows
from converters.training_stage import ToTrain, Trained, source
from edge_core.bundle.manifest import FineTuning

OUTPUT = "logits"


@dataclass(frozen=True, kw_only=True)
class ToFineTune:
    """What was trained, and on what it is judged."""

    given: ToTrain
    trained: Trained
    scorer: Scorer
    """Of the test rows; they judge here, they do not train."""

    def digest(self) -> str:
        """Of both; the scorer follows from them."""
        parts = f"{self.given.digest()}\0{self.trained.digest()}"
        return hashlib.sha256(parts.encode()).hexdigest()


class FineTune(StoredStage[ToFineTune, Trained]):
    """Adapt the weights to int8 where static int8 loses too much without."""

    name = "fine-tune for int8"

    def requires(self, given: ToFineTune) -> None:
        """Nothing beyond what training required."""

    def run(self, given: ToFineTune) -> Trained:
        """Quantise, look at the gates, and train on only where they fail."""
        import safetensors.torch

        from converters import embedding, qat

        recipe = given.given.recipe
        how = recipe.quantisation.qat
        assert how is not None
        before = source(given.given, given.trained).load()
        lost = loss(before, given)
        if not failing(recipe, lost):
            return msgspec.structs.replace(
                given.trained, fine_tuning=FineTuning(needed=False, before=lost, after=lost)
            )
        rows = given.given.snapshot.rows["train"]
        feeds = _feeds(recipe, model_rows(recipe, rows))
        # Its own answers, not the labels: the aim is the same model on the int8 grid.
        after = qat.fine_tune(
            before,
            feeds,
            teacher=before.run(feeds),
            epochs=how.epochs,
            learning_rate=how.learning_rate,
            seed=recipe.seed,
        )
        weights = embedding.trained_part(after.module).state_dict()
        state = {name: value.contiguous() for name, value in weights.items()}
        tuned = FineTuning(needed=True, before=lost, after=loss(after, given))
        return msgspec.structs.replace(
            given.trained, weights=safetensors.torch.save(state), fine_tuning=tuned
        )

    def ensures(self, given: ToFineTune, made: Trained) -> None:
        """The weights have to fit the network that the recipe makes."""
        source(given.given, made).load()

    def pack(self, made: Trained) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> Trained:
        """See :class:`StoredStage`."""
        return Trained.unpack(data)


def loss(model: FloatModel, given: ToFineTune) -> dict[str, float]:
    """What static int8 costs this model, by onnxruntime on this machine.

    Returns:
        ``metric_drop``, overall and as ``metric_drop/name=value``.
    """
    from converters import export, host

    recipe, snapshot = given.given.recipe, given.given.snapshot
    calibration = _feeds(recipe, model_rows(recipe, snapshot.rows["calibration"]))
    test = _feeds(recipe, model_rows(recipe, snapshot.rows["test"]))
    wanted = Wanted(scheme="int8 static", reduce_range=True, method="min/max")
    quantised = quantise(export.to_onnx(model), calibration, wanted)
    floating = given.scorer.score(_logits(given, test))
    own = given.scorer.score(host.runner(quantised)(test)[OUTPUT])
    primary = recipe.metrics[0]
    return {
        name.replace(primary, "metric_drop", 1): floating[name] - own[name]
        for name in floating
        if name.partition("/")[0] == primary
    }


def failing(recipe: Recipe, lost: dict[str, float]) -> bool:
    """Whether a metric falls further than the gates allow."""
    limits = recipe.gates
    return any(
        value > (limits.metric_drop_slice if "/" in name else limits.metric_drop)
        for name, value in lost.items()
    )


def _logits(given: ToFineTune, test: Feeds) -> Float32:
    """The answers of the model as it was trained: fine-tuning may not move its own goal."""
    first: RecipeSource = source(given.given, given.trained)
    logits: Float32 = first.load().run(test)[OUTPUT]
    return logits


def _feeds(recipe: Recipe, rows: Float32) -> Feeds:
    return {str(recipe.input): rows}
