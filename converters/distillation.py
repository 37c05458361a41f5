"""Teaches a small network what a larger one answers.

Sources: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): soft
targets at a temperature. Romero et al., "FitNets" (2015): a hidden layer of the student learns,
through a linear adapter, to say what one of the teacher's says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from edge_core.errors import InvalidConfiguration

Answering = Callable[[torch.Tensor], torch.Tensor]
"""Rows [batch, ...] -> logits [batch, classes]; a teacher's hidden layer needs a module."""
Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Rows [batch, ...] -> altered rows of the same shape; all chance comes from the generator."""


class HiddenLayers(NamedTuple):
    """Which layers are compared, by module path."""

    student: str
    teacher: str


class EpochLoss(NamedTuple):
    """Means over one epoch's rows."""

    hard: float
    """Cross-entropy with the labels, nats."""
    soft: float
    """KL divergence from the teacher at the temperature, times its square, nats."""
    feature: float
    """Mean square difference of the hidden layers; 0 where none are compared."""
    total: float
    """What was minimised."""


def distil(
    student: nn.Module,
    teacher: Answering,
    rows: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    hard_weight: float,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 0.0,
    feature_weight: float = 0.0,
    hidden: HiddenLayers | None = None,
    augment: Augment | None = None,
) -> list[EpochLoss]:
    """Train ``student`` in place by AdamW under a cosine schedule; it ends in evaluation mode.

    The loss is ``hard_weight * hard + (1 - hard_weight) * soft + feature_weight * feature``. The
    result depends on the arguments alone: one thread, and torch's global generator and thread
    count are as before afterwards. The teacher answers the augmented rows, without gradients.

    Args:
        student: takes rows, answers logits float32 [batch, classes].
        teacher: the same; where it is a module, it is put into evaluation mode.
        rows: float32 [rows, ...].
        labels: class numbers, int64 [rows].
        temperature: above 0; 1 leaves the teacher's probabilities as they are.
        hard_weight: 0 (teacher alone) to 1 (labels alone).
        epochs: passes over all rows.
        batch: rows per step.
        learning_rate: at the beginning.
        seed: of order, augmentation, dropout and the adapter.
        weight_decay: AdamW's.
        feature_weight: 0 leaves the hidden layers alone.
        hidden: the layers to compare; needed where ``feature_weight`` is above 0.
        augment: alters each batch.

    Returns:
        The losses of each epoch, in order.

    Raises:
        InvalidConfiguration: hidden layers are not named, do not exist, or do not fit.
    """
    teaching = _Teaching(student, teacher, temperature, hard_weight, feature_weight, hidden)
    draw = torch.Generator().manual_seed(seed)
    with _alone(seed), teaching:
        teaching.adapt(rows[:2])
        optimiser = torch.optim.AdamW(
            teaching.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, epochs))
        student.train()
        history = []
        for _ in range(epochs):
            found = []
            order = torch.randperm(len(labels), generator=draw)
            for start in range(0, len(labels), batch):
                places = order[start : start + batch]
                chosen = augment(rows[places], draw) if augment else rows[places]
                loss, parts = teaching.loss(chosen, labels[places])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimiser.step()
                found.append(parts * len(places))
            optimiser.zero_grad()
            schedule.step()
            history.append(EpochLoss(*(torch.stack(found).sum(0) / len(labels)).tolist()))
        student.eval()
    return history


class _Teaching:
    """The loss, and what it has to listen to."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Answering,
        temperature: float,
        hard_weight: float,
        feature_weight: float,
        hidden: HiddenLayers | None,
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._temperature = temperature
        self._hard_weight = hard_weight
        self._feature_weight = feature_weight
        self._hidden = hidden
        self._heard: dict[str, torch.Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._adapter: nn.Module | None = None
        if feature_weight and hidden is None:
            raise InvalidConfiguration("feature_weight needs a student_layer and a teacher_layer")

    def __enter__(self) -> None:
        if isinstance(self._teacher, nn.Module):
            self._teacher.eval()
        if self._feature_weight and self._hidden:
            if not isinstance(self._teacher, nn.Module):
                raise InvalidConfiguration("feature_weight needs a teacher that is a module")
            layers = {
                "student": _layer("student", self._student, self._hidden.student),
                "teacher": _layer("teacher", self._teacher, self._hidden.teacher),
            }
            for who, layer in layers.items():
                self._listen(who, layer)

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _listen(self, who: str, layer: nn.Module) -> None:
        def keep(_module: nn.Module, _given: object, answer: torch.Tensor) -> None:
            self._heard[who] = answer

        self._hooks.append(layer.register_forward_hook(keep))

    def adapt(self, rows: torch.Tensor) -> None:
        """Make the adapter: linear over the channels (dimension 1) of both layers."""
        if not self._hooks:
            return
        self._student.eval()
        with torch.no_grad():
            self._student(rows)
            self._teacher(rows)
        own, other = self._heard["student"].shape, self._heard["teacher"].shape
        if own[2:] != other[2:]:
            raise InvalidConfiguration(
                f"hidden layers differ in shape beyond their channels: {list(own[1:])} and "
                f"{list(other[1:])}; name layers of equal resolution"
            )
        self._adapter = nn.Linear(own[1], other[1])

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns."""
        yield from self._student.parameters()
        if self._adapter is not None:
            yield from self._adapter.parameters()

    def loss(self, rows: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and hard, soft, feature and total loss, float32 [4]."""
        with torch.no_grad():
            wanted = self._teacher(rows)
        answered = self._student(rows)
        hard = nn.functional.cross_entropy(answered, labels)
        soft = soft_loss(answered, wanted, self._temperature)
        feature = self._feature_loss(hard)
        total = self._hard_weight * hard + (1 - self._hard_weight) * soft
        total = total + self._feature_weight * feature
        return total, torch.stack([hard, soft, feature, total]).detach()

    def _feature_loss(self, like: torch.Tensor) -> torch.Tensor:
        if self._adapter is None:
            return torch.zeros_like(like)
        own = self._adapter(self._heard["student"].movedim(1, -1))
        return nn.functional.mse_loss(own, self._heard["teacher"].movedim(1, -1))


def _layer(who: str, module: nn.Module, path: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if path not in layers:
        known = ", ".join(name for name in layers if name)
        raise InvalidConfiguration(f"the {who} has no layer {path!r}; it has {known}")
    return layers[path]


def soft_loss(answered: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence of softened answers, times the temperature squared, in nats.

    The square keeps the gradient's size independent of the temperature (Hinton 2015, section 2).
    Both are logits [batch, classes].
    """
    return temperature**2 * nn.functional.kl_div(
        (answered / temperature).log_softmax(1),
        (wanted / temperature).log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """One thread and a seeded global generator (dropout draws from it), both put back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
