"""What a student learns from its teacher, and that nothing else decides it."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from converters.distillation import EpochLoss, HiddenLayers, distil, soft_loss
from edge_core.errors import InvalidConfiguration

HOW = {"temperature": 4.0, "hard_weight": 0.1, "batch": 64, "learning_rate": 1e-2, "seed": 5}


class Images:
    """A few labelled digits with some labels wrong, many without labels' use, and a test set."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images = torch.from_numpy(((images - 5) / 6).astype(np.float32))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.test = torch.arange(len(labels)) % 3 == 0
        self.wrong = self.labels.clone()
        draw = torch.Generator().manual_seed(0)
        spoilt = torch.rand(len(labels), generator=draw) < 0.4
        self.wrong[spoilt] = torch.randint(0, 10, (int(spoilt.sum()),), generator=draw)

    def accuracy(self, module: nn.Module) -> float:
        with torch.no_grad():
            best = module(self.images[self.test]).argmax(1)
        return float((best == self.labels[self.test]).float().mean())


@pytest.fixture(scope="module")
def images() -> Images:
    return Images()


def perceptron(hidden: int, seed: int = 1, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10)
    )


@pytest.fixture(scope="module")
def teacher(images: Images) -> nn.Module:
    """Learned from the right labels."""
    made = perceptron(128)
    learn(made, images, images.labels, epochs=15)
    return made


def learn(
    student: nn.Module, images: Images, labels: torch.Tensor, *, epochs: int
) -> list[EpochLoss]:
    """Labels alone: the teacher has no weight."""
    rows = images.images[~images.test]
    return distil(
        student,
        lambda batch: torch.zeros(len(batch), 10),
        rows,
        labels[~images.test],
        epochs=epochs,
        **(HOW | {"hard_weight": 1.0}),
    )


def taught(
    student: nn.Module, teacher: nn.Module, images: Images, *, epochs: int = 10, **how: object
) -> list[EpochLoss]:
    return distil(
        student,
        teacher,
        images.images[~images.test],
        images.wrong[~images.test],
        epochs=epochs,
        **(HOW | how),  # type: ignore[arg-type]
    )


def test_a_student_of_a_good_teacher_beats_one_of_bad_labels(
    images: Images, teacher: nn.Module
) -> None:
    alone, student = perceptron(16), perceptron(16)
    learn(alone, images, images.wrong, epochs=10)
    history = taught(student, teacher, images)
    print(
        f"teacher {images.accuracy(teacher):.3f} distilled {images.accuracy(student):.3f} "
        f"alone {images.accuracy(alone):.3f}"
    )
    assert images.accuracy(student) > images.accuracy(alone) + 0.03
    assert images.accuracy(student) > images.accuracy(teacher) - 0.05
    assert len(history) == 10
    assert history[-1].soft < history[0].soft / 3
    assert not student.training


def test_the_soft_loss_is_zero_for_equal_answers_and_scaled_by_the_temperature() -> None:
    answers = torch.tensor([[2.0, 0.0, -1.0]])
    shifted = answers + 3  # softmax does not see a shift
    assert float(soft_loss(answers, shifted, 4.0)) == pytest.approx(0, abs=1e-6)
    other = torch.tensor([[0.0, 1.0, 0.0]])
    p, q = (other / 4).softmax(1), (answers / 4).softmax(1)
    by_hand = 16 * float((p * (p / q).log()).sum())
    assert float(soft_loss(answers, other, 4.0)) == pytest.approx(by_hand, rel=1e-5)


def test_losses_are_the_parts_of_the_total(images: Images, teacher: nn.Module) -> None:
    (loss,) = taught(
        perceptron(16),
        teacher,
        images,
        epochs=1,
        feature_weight=0.5,
        hidden=HiddenLayers("1", "1"),
    )
    assert loss.feature > 0
    total = 0.1 * loss.hard + 0.9 * loss.soft + 0.5 * loss.feature
    assert loss.total == pytest.approx(total, rel=1e-5)


def test_feature_matching_brings_the_hidden_layers_together(
    images: Images, teacher: nn.Module
) -> None:
    history = taught(
        perceptron(32), teacher, images, feature_weight=1.0, hidden=HiddenLayers("1", "1")
    )
    assert history[-1].feature < history[0].feature / 2
    assert taught(perceptron(32), teacher, images, epochs=1)[0].feature == 0


def test_hidden_convolutions_of_equal_resolution_are_compared() -> None:
    def convolution(channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv1d(3, channels, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))

    student, teacher = convolution(4), convolution(8)
    rows, labels = torch.randn(64, 3, 10), torch.arange(64) % 2
    for module in (student, teacher):
        module(rows[:1])
    history = distil(
        student,
        teacher,
        rows,
        labels,
        epochs=3,
        feature_weight=1.0,
        hidden=HiddenLayers("1", "1"),
        **HOW,  # type: ignore[arg-type]
    )
    assert history[-1].feature < history[0].feature


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in module.state_dict().values()])


def test_only_the_arguments_decide(images: Images, teacher: nn.Module) -> None:
    def shifted(rows: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        return rows + 0.1 * torch.randn(rows.shape, generator=draw)

    first, second, third = (perceptron(16, dropout=0.3) for _ in range(3))
    torch.manual_seed(10)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    told = taught(first, teacher, images, epochs=2, augment=shifted)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(11)
    assert taught(second, teacher, images, epochs=2, augment=shifted) == told
    assert torch.equal(weights(first), weights(second))
    taught(third, teacher, images, epochs=2, augment=shifted, seed=6)
    assert not torch.equal(weights(first), weights(third))


def test_the_teacher_stays_as_it_was(images: Images, teacher: nn.Module) -> None:
    before = weights(teacher).clone()
    teacher.train()
    taught(
        perceptron(8),
        teacher,
        images,
        epochs=1,
        feature_weight=1.0,
        hidden=HiddenLayers("1", "1"),
    )
    assert torch.equal(weights(teacher), before)
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_answers_the_altered_rows(images: Images) -> None:
    seen = []

    def teacher(rows: torch.Tensor) -> torch.Tensor:
        seen.append(float(rows.min()))
        return torch.zeros(len(rows), 10)

    taught(
        perceptron(8),
        teacher,  # type: ignore[arg-type]
        images,
        epochs=1,
        augment=lambda rows, draw: rows + 100,
    )
    assert min(seen) > 90


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"feature_weight": 1.0}, "student_layer"),
        ({"feature_weight": 1.0, "hidden": HiddenLayers("7", "1")}, "student has no layer '7'"),
        ({"feature_weight": 1.0, "hidden": HiddenLayers("1", "x.y")}, "teacher has no layer"),
    ],
)
def test_layers_that_are_not_there_are_named(
    images: Images, teacher: nn.Module, how: dict[str, object], names: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=names):
        taught(perceptron(8), teacher, images, epochs=1, **how)


def test_a_plain_function_has_no_hidden_layer(images: Images) -> None:
    with pytest.raises(InvalidConfiguration, match="module"):
        taught(
            perceptron(8),
            lambda rows: torch.zeros(len(rows), 10),  # type: ignore[arg-type]
            images,
            epochs=1,
            feature_weight=1.0,
            hidden=HiddenLayers("1", "1"),
        )
