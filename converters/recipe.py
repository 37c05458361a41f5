"""A recipe: the declared inputs of one conversion, read from TOML into a frozen value. No torch."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from converters.metrics import LOWER_IS_BETTER, METRICS
from converters.model_file import Scheme
from converters.quantising import Method
from edge_core.bundle.manifest import Budget, ModelName, Privacy
from edge_core.errors import InvalidConfiguration
from edge_core.release import VERSION_PATTERN
from edge_core.stats.projection import MAX_DIRECTIONS, MAX_SIZE

RECIPE_FILE = "recipe.toml"
RELEASES_FOLDER = "releases"
TARGETS_FOLDER = "targets"

Setting = str | int | float | bool | list[str]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")]
EntryPoint = Annotated[str, msgspec.Meta(pattern=r"^[a-z_][a-z0-9_]*:[a-z_][a-z0-9_]*$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
MetricName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*(:[a-z_][a-z0-9_]*)?$", max_length=64)
]
"""A built-in metric, or ``module:function`` in the recipe folder."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the recipe; unknown keys are refused."""


class EntryPoints(_Section, frozen=True, kw_only=True):
    """``module:function`` in the recipe folder; signatures: ``converters.recipe_code``."""

    recordings: EntryPoint | None = None
    """Data for features of sensor windows."""
    log: EntryPoint | None = None
    """Data for features of requests."""
    network: EntryPoint
    train: EntryPoint
    teacher_network: EntryPoint | None = None
    teacher_train: EntryPoint | None = None
    augment: EntryPoint | None = None
    """Alters rows while the student is distilled."""

    def __post_init__(self) -> None:
        if (self.recordings is None) == (self.log is None):
            raise ValueError("entry names either recordings or log")


class Output(_Section, frozen=True, kw_only=True):
    """What an answer means."""

    classes: Annotated[list[str], msgspec.Meta(min_length=2)]
    meaning: str


class DataRecipe(_Section, frozen=True, kw_only=True):
    """What people call the data; it stands in the manifest, the card and the snapshot."""

    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The model's name where none is given."""
    source: Annotated[str, msgspec.Meta(max_length=300)] = ""
    """Where it is from and its licence; the recipe's name where none is given."""


class FallbackRecipe(_Section, frozen=True, kw_only=True):
    """The logistic baseline."""

    features: Annotated[list[str], msgspec.Meta(min_length=1)]
    l2: Annotated[float, msgspec.Meta(ge=0)] = 1e-3


class DistillationRecipe(_Section, frozen=True, kw_only=True):
    """The student first goes through its own ``train``, then learns from the teacher."""

    teacher: Literal["entry", "release"] = "entry"
    """``entry``: the recipe's own ``teacher_network``, trained by ``teacher_train``. ``release``: a
    finished bundle, named by ``--teacher``."""
    temperature: Positive = 2.0
    hard_weight: Share = 0.5
    """1 learns from labels alone, 0 from the teacher alone."""
    epochs: Count
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    batch: Count = 128
    feature_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    student_layer: str = ""
    """Module path of the hidden layer that learns to say what the teacher's says."""
    teacher_layer: str = ""

    def __post_init__(self) -> None:
        if self.feature_weight and self.teacher == "release":
            raise ValueError("a release shows no hidden layers: feature_weight has to be 0")
        if self.feature_weight and not (self.student_layer and self.teacher_layer):
            raise ValueError("feature_weight needs student_layer and teacher_layer")


class EmbeddingRecipe(_Section, frozen=True, kw_only=True):
    """A hidden layer as a second output, ``embedding``, which devices watch for drift."""

    layer: Annotated[str, msgspec.Meta(min_length=1)]
    """Module path; the layer answers [batch, size]."""
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE)]
    directions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIRECTIONS)] = 8
    """From which devices look at it."""
    numeric_error: Positive = 0.1
    """Gate: rms difference from fp32 over the standard deviation of its coordinates."""


class QatRecipe(_Section, frozen=True, kw_only=True):
    """Quantisation-aware fine-tuning, used where static int8 fails its gates."""

    epochs: Count
    learning_rate: Positive = 1e-3


class QuantisationRecipe(_Section, frozen=True, kw_only=True):
    """How models are quantised where the target leaves a choice."""

    scheme: Scheme = "int8 static"
    method: Method = "auto"
    """Calibration method."""
    qat: QatRecipe | None = None
    mixed: bool = False
    """Whether layers may stay in float, the fewest that make the gates pass."""


class GateLimits(_Section, frozen=True, kw_only=True):
    """Thresholds; differences are losses, so negative means better."""

    metric_drop: Share = 0.01
    metric_drop_slice: Share = 0.02
    numeric_error: Annotated[float, msgspec.Meta(gt=0)] = 0.05
    top1_agreement: Share = 0.98
    below_baseline: Share = 0.0
    """How far accuracy may lie below the fallback's; above 0 only for a baseline release."""
    below_teacher: Share = 0.05
    """How far a distilled model may lie below its teacher."""
    below_parent: Share = 0.01
    below_parent_slice: Share = 0.02
    min_slice_rows: Count = 30
    suspicious_score: Positive = 0.999
    """A test score from here on stops the build until somebody explains it."""
    single_feature: Share = 0.01
    """One feature alone that comes this close to the model's ROC area stops it, too."""
    label_derived: Share = 0.4
    """Correlation of a feature's change with its own row's label, beyond that of its value."""
    one_event_older: Share = 0.05
    """Loss of ROC area when every feature is made one event older."""
    random_split: Share = 0.08
    """By how much a random split may flatter a simple model, in ROC area."""


class Recipe(_Section, frozen=True, kw_only=True):
    """One release of a model, with the recipe's defaults filled in."""

    model: ModelName
    version: Annotated[str, msgspec.Meta(pattern=VERSION_PATTERN)]
    description: str = ""
    features: str = "features.json"
    input: Literal["features", "samples"] = "features"
    """What the model takes: features [batch, features] or raw windows [batch, samples, inputs]."""
    targets: Annotated[list[str], msgspec.Meta(min_length=1)]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    label_delay_seconds: float = 0.0
    entry: EntryPoints
    data: DataRecipe = DataRecipe()
    output: Output
    slices: dict[Name, list[str]] = {}
    budget: Budget
    fallback: FallbackRecipe
    privacy: Privacy | None = None
    """What devices keep to themselves; docs/telemetry.md says what it protects."""
    metrics: Annotated[list[MetricName], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["accuracy"]
    )
    """The first is the one that gates watch; higher has to be better."""
    distillation: DistillationRecipe | None = None
    embedding: EmbeddingRecipe | None = None
    quantisation: QuantisationRecipe = QuantisationRecipe()
    gates: GateLimits = GateLimits()
    settings: dict[str, Setting] = {}
    """The recipe's own: its code checks them."""

    def __post_init__(self) -> None:
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics: one is named twice")
        odd = [name for name in self.metrics if ":" not in name and name not in METRICS]
        if odd:
            raise ValueError(f"metrics: unknown {', '.join(odd)}; known are {', '.join(METRICS)}")
        if self.metrics[0] in LOWER_IS_BETTER:
            raise ValueError(f"metrics: {self.metrics[0]} falls as models improve; name it later")
        entry = self.entry
        if entry.log is not None and self.input == "samples":
            raise ValueError("a model of requests takes features: input = 'features'")
        own = self.distillation is not None and self.distillation.teacher == "entry"
        if own and not (entry.teacher_network and entry.teacher_train):
            raise ValueError("distillation needs entry.teacher_network and entry.teacher_train")


def load(folder: Path, release: str | None) -> Recipe:
    """Read ``recipe.toml`` and lay the release's file over it; the newest release if none named.

    Raises:
        InvalidConfiguration: a file is missing, not TOML, or a key is unknown or out of range.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise InvalidConfiguration(f"no recipe at {folder}: name a folder with {RECIPE_FILE} in it")
    version = release or _newest(folder)
    overlay = folder / RELEASES_FOLDER / f"{version}.toml"
    if not overlay.is_file():
        known = ", ".join(_releases(folder)) or "none"
        raise InvalidConfiguration(f"{folder} has no release {version}; it has: {known}")
    base, over = _toml(path), _toml(overlay)
    _check_settings(base, over, overlay)
    merged = _merged(base, over) | {"version": version}
    try:
        return msgspec.convert(merged, Recipe)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{path} with {overlay.name}: {error}") from error


def _check_settings(base: dict[str, Any], over: dict[str, Any], overlay: Path) -> None:
    """A release changes settings that the recipe has; a new name is a slip of the pen."""
    known, named = base.get("settings"), over.get("settings")
    if isinstance(known, dict) and isinstance(named, dict) and (odd := named.keys() - known.keys()):
        raise InvalidConfiguration(
            f"{overlay}: unknown setting {', '.join(sorted(odd))}; "
            f"{RECIPE_FILE} has {', '.join(sorted(known))}"
        )


def release_file(recipe: Recipe) -> str:
    """Path of the release's own file, below the recipe folder."""
    return f"{RELEASES_FOLDER}/{recipe.version}.toml"


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` wins; tables merge key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error


def _newest(folder: Path) -> str:
    versions = _releases(folder)
    if not versions:
        raise InvalidConfiguration(f"{folder / RELEASES_FOLDER} holds no MAJOR.MINOR.PATCH.toml")
    return versions[-1]


def _releases(folder: Path) -> list[str]:
    stems = (path.stem for path in (folder / RELEASES_FOLDER).glob("*.toml"))
    versions = [stem for stem in stems if re.match(VERSION_PATTERN, stem)]
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])
