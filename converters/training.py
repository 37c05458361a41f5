"""From a recipe's code and rows to its trained network, by way of a teacher where it names one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.data.dataset import Float32, Rows, Snapshot
from converters.recipe import DistillationRecipe, Recipe
from converters.recipe_code import RecipeCode
from converters.release_teacher import ReleaseTeacher
from edge_core.features.definition import FeatureDefinition
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition

if TYPE_CHECKING:
    import torch

    from converters.distillation import EpochLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What training made; modules are in evaluation mode."""

    network: "torch.nn.Module"
    teacher: "torch.nn.Module | None"
    """The recipe's own teacher, where it teaches."""
    history: "tuple[EpochLoss, ...]"
    """Losses of each epoch of distillation."""


def model_rows(chosen: Recipe, rows: Rows) -> Float32:
    """What the recipe's model takes: features [rows, f] or raw windows [rows, samples, inputs]."""
    return rows.samples if chosen.input == "samples" else rows.features


def train(
    chosen: Recipe, code: RecipeCode, snapshot: Snapshot, release: ReleaseTeacher | None = None
) -> Trained:
    """Train in one thread with deterministic kernels, so that a seed fixes the weights.

    ``release`` teaches where the recipe says so; otherwise the recipe's own teacher does.

    Raises:
        InvalidConfiguration: the network cannot have the embedding that the recipe declares.
    """
    import torch

    from converters import embedding

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    definition, rows = snapshot.definition, snapshot.rows["train"]
    classes, evaluator = len(snapshot.classes), _evaluator(definition)
    torch.manual_seed(chosen.seed)
    network = code.network(definition, classes, chosen.settings)
    if chosen.embedding is not None:  # before hours of training
        embedding.check(
            network,
            chosen.embedding.layer,
            chosen.embedding.size,
            model_rows(chosen, rows).shape[1:],
        )
    code.train(network, rows, evaluator, chosen.settings, chosen.seed)
    network.eval()
    if chosen.distillation is None:
        return Trained(network=network, teacher=None, history=())
    if release is not None:
        history = _distil(network, release, chosen, chosen.distillation, code, rows)
        return Trained(network=network, teacher=None, history=tuple(history))
    teacher = train_teacher(chosen, code, snapshot)
    history = _distil(network, teacher, chosen, chosen.distillation, code, rows)
    return Trained(network=network, teacher=teacher, history=tuple(history))


def train_teacher(chosen: Recipe, code: RecipeCode, snapshot: Snapshot) -> "torch.nn.Module":
    """The recipe's teacher, trained with the recipe's seed."""
    import torch

    # The recipe was checked to name both.
    assert code.teacher_network is not None
    assert code.teacher_train is not None
    definition = snapshot.definition
    torch.manual_seed(chosen.seed)
    teacher = code.teacher_network(definition, len(snapshot.classes), chosen.settings)
    evaluator = _evaluator(definition)
    code.teacher_train(teacher, snapshot.rows["train"], evaluator, chosen.settings, chosen.seed)
    return teacher.eval()


def _evaluator(definition: FeatureDefinition) -> Evaluator | None:
    return Evaluator(definition) if isinstance(definition, WindowDefinition) else None


def _distil(
    network: "torch.nn.Module",
    teacher: "torch.nn.Module | ReleaseTeacher",
    chosen: Recipe,
    how: DistillationRecipe,
    code: RecipeCode,
    rows: Rows,
) -> "list[EpochLoss]":
    import torch

    from converters.distillation import HiddenLayers, distil

    def altered(batch: "torch.Tensor", draw: "torch.Generator") -> "torch.Tensor":
        return code.augment(batch, chosen.settings, draw) if code.augment else batch

    return distil(
        network,
        teacher,
        torch.from_numpy(model_rows(chosen, rows)),
        torch.from_numpy(rows.labels),
        temperature=how.temperature,
        hard_weight=how.hard_weight,
        epochs=how.epochs,
        batch=how.batch,
        learning_rate=how.learning_rate,
        seed=chosen.seed,
        weight_decay=how.weight_decay,
        feature_weight=how.feature_weight,
        hidden=HiddenLayers(how.student_layer, how.teacher_layer) if how.feature_weight else None,
        augment=altered,
    )
