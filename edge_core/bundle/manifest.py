"""The manifest: one canonical JSON document that says what a release is and what proves it.

The schema version is looked at first; an unknown version is refused, never guessed. Nothing
here hashes or reads files.
"""

import math
import re
from typing import Annotated, Final, Literal

import msgspec

from edge_core.errors import InvalidBundle, quoted
from edge_core.release import MODEL_PATTERN, SHA256_PATTERN, VERSION_PATTERN, ReleaseRef
from edge_core.stats.projection import MAX_SIZE

SCHEMA_VERSION = 4
"""Version 2 names the snapshot of the data and the figure that gates watch; 3 has privacy; 4 has an
embedding."""
PLAIN_VERSION = 3
"""As which manifests without an embedding are written."""
READ_VERSIONS = (1, 2, PLAIN_VERSION, SCHEMA_VERSION)
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_PROVENANCE_BYTES = 2 * MAX_MANIFEST_BYTES
"""A statement repeats parts of a manifest in base64."""
MAX_FILES = 256
MAX_FILE_BYTES = 256 * 1024 * 1024

MANIFEST: Final = "manifest.json"
SIGNATURE = "model.sig"
PROVENANCE = "provenance.sig"
FEATURES = "features.json"
REFERENCE = "reference.bin"
GOLDEN = "golden.npz"
FALLBACK = "fallback.json"
CARD = "card.md"

Sha256 = Annotated[str, msgspec.Meta(pattern=SHA256_PATTERN)]
Version = Annotated[str, msgspec.Meta(pattern=VERSION_PATTERN)]
ModelName = Annotated[str, msgspec.Meta(pattern=MODEL_PATTERN)]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]

RuntimeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z")]
"""Of one that the agent brings, or of an installed plug-in."""
ProviderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
"""An execution provider, or the plain file name of a delegate's library."""

_PATH = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,4}\Z")


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the manifest: immutable, named fields only, unknown fields refused."""


class FileEntry(_Record, frozen=True, kw_only=True):
    """One file of the bundle, by its path below the bundle folder."""

    path: str
    size: Size
    sha256: Sha256

    def __post_init__(self) -> None:
        if not _PATH.match(self.path) or len(self.path) > 200:
            raise ValueError(f"path {self.path!r} is not a plain relative path")


class OutputContract(_Record, frozen=True, kw_only=True):
    """What an answer means. A change that breaks it needs a new MAJOR version.

    The model file answers ``logits`` float32 [batch, classes]; the device turns them into
    probabilities (``edge_core.outputs``).
    """

    name: str
    classes: Annotated[list[str], msgspec.Meta(min_length=2, max_length=1000)]
    meaning: str
    embedding: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE)] | msgspec.UnsetType = msgspec.UNSET
    """Coordinates of the second output, ``embedding`` float32 [batch, coordinates]; left out where
    the model file has none."""

    @property
    def coordinates(self) -> int:
        """Of the embedding; 0 where there is none."""
        return 0 if isinstance(self.embedding, msgspec.UnsetType) else self.embedding


class DatasetRecord(_Record, frozen=True, kw_only=True):
    """A data set that went into the release."""

    role: Literal["train", "calibration", "test", "golden"]
    name: str
    source: str
    sha256: Sha256
    """Digest of the rows that were used, not of the file they came from."""
    rows: int
    entities: list[str]
    """Whom the rows come from (subjects, sites); used to prove that roles are disjoint."""
    first: str | None = None
    last: str | None = None
    """Time span, ISO 8601; none where the source has no wall-clock times."""


class DataSnapshot(_Record, frozen=True, kw_only=True):
    """The data that all rows were made from, as files that are kept under their digest."""

    id: Sha256
    """Of the snapshot's description, which holds the digest of every file."""
    name: str
    """What the model builder calls the data set."""
    source: str
    schema_sha256: Sha256
    """Of the names, types and units of all columns."""
    rows: dict[str, int]
    """By table."""
    first: str | None = None
    last: str | None = None
    """Time span, ISO 8601; none where the source has no wall-clock times."""


class Provenance(_Record, frozen=True, kw_only=True):
    """What made the bundle."""

    recipe: str
    recipe_sha256: Sha256
    """Digest over the recipe folder's files and the chosen release's settings."""
    settings: dict[str, str | int | float | bool | list[str] | None]
    code_commit: str | None
    code_dirty: bool | None
    seed: int
    tools: dict[str, str]
    machine: str


class InputScaling(_Record, frozen=True, kw_only=True):
    """What a device does to each value before it quantises it for an int8-only model.

    ``clip((x - mean) * gain, -limit, limit)`` in float32; ``mean`` and ``gain``, flattened from
    ``shape``, broadcast over one row.
    """

    shape: list[int]
    mean: list[float]
    gain: list[float]
    limit: float


class EmbeddingRecord(_Record, frozen=True, kw_only=True):
    """What was measured of one variant's second output."""

    numeric_error: float | None
    """Rms difference from fp32, over the standard deviation of fp32's coordinates."""
    tolerance: float
    """Largest difference of a golden coordinate that another machine may show."""


class VariantRecord(_Record, frozen=True, kw_only=True):
    """The model file for one target and what was measured of it.

    Compiled, placed, compared and run are kept apart: a figure is none where nothing showed it.
    """

    target: str
    runtime: RuntimeName
    path: str
    quantization: dict[str, str | bool | float]
    providers: list[ProviderName] | msgspec.UnsetType = msgspec.UNSET
    """Execution providers or delegates that the target asks for, the most wanted first. Left out
    where the runtime's own choice is meant, so that manifests of such targets stay as they were."""
    float_layers: list[str] = []
    """Layers with weights that stayed in float, by the module that they came from."""
    layer_errors: dict[str, float] = {}
    """Numeric error that quantising this one layer alone adds; empty where not measured."""
    scaling: InputScaling | None = None
    placement: dict[str, int]
    """Operators of the compiled graph by where and in which precision they run."""
    misplaced: list[str] = []
    """Operators that do not run where the target wants them."""
    numeric_error: float | None
    """Rms difference of logits from fp32, over the standard deviation of fp32's logits."""
    top1_agreement: float | None
    tolerance: float
    """Largest difference of a golden logit that another machine may show."""
    embedding: EmbeddingRecord | msgspec.UnsetType = msgspec.UNSET
    """Left out where the release has none."""
    latency_us: dict[str, float]
    """Median microseconds by batch size, on ``measured_on``; empty where never run on hardware."""
    measured_on: str
    """Who answered, and on what; empty where the file was compiled only."""
    ran_on_hardware: bool
    estimate: dict[str, float] = {}
    """What the target's tool predicts; units in the names (``sram_bytes``, ``latency_us``)."""
    estimated_by: str = ""
    compiled_by: str = ""
    metrics: dict[str, float] = {}
    """Test-set figures of this variant; empty where it was never run."""
    size_ratio: float
    """Bytes of the file over bytes of the fp32 model of the same format."""


class Budget(_Record, frozen=True, kw_only=True):
    """Limits that the release declares for its devices."""

    latency_us: float
    memory_bytes: int
    size_bytes: int
    cost_per_million: float | None = None
    """Cost of a million predictions, in the currency of the target profiles."""


class GateResult(_Record, frozen=True, kw_only=True):
    """One gate's outcome. ``no_evidence`` is never a pass; ``waived`` names its waiver."""

    gate: str
    outcome: Literal["passed", "failed", "no_evidence"]
    target: str | None = None
    slice: str | None = None
    """``name=value``, or none for the whole test set."""
    value: float | None = None
    threshold: float | None = None
    rows: int | None = None
    waived: bool = False
    detail: str = ""


class Waiver(_Record, frozen=True, kw_only=True):
    """A person's explicit decision to ship despite a gate; shown wherever the release is."""

    gate: str
    slice: str | None = None
    reason: Annotated[str, msgspec.Meta(min_length=8, max_length=500)]


class Teacher(_Record, frozen=True, kw_only=True):
    """The model that a distilled one learned from."""

    name: str
    """A release, or the recipe's own teacher."""
    digest: Sha256
    """Of the release's manifest, or of the teacher's structure and weights."""
    temperature: float
    hard_weight: float
    feature_weight: float = 0.0
    metrics: dict[str, float] = {}


class Privacy(_Record, frozen=True, kw_only=True):
    """What devices keep to themselves. docs/telemetry.md says what it protects."""

    epsilon: Annotated[float, msgspec.Meta(ge=0.01, le=100)] | None = None
    """Differential privacy of one row: counts leave the device with noise; none: they are exact."""
    redacted: Annotated[list[str], msgspec.Meta(max_length=2048)] = []
    """Inputs or fields of which samples carry no value."""

    def __post_init__(self) -> None:
        if self.epsilon is not None and not math.isfinite(self.epsilon):
            raise ValueError("epsilon is not a finite number")
        if len(set(self.redacted)) != len(self.redacted):
            raise ValueError("redacted names an input twice")


class FineTuning(_Record, frozen=True, kw_only=True):
    """Quantisation-aware training, asked for by the recipe."""

    needed: bool
    """Whether static int8 missed its gates without it; if not, nothing was changed."""
    before: dict[str, float]
    """Metric drop of static int8, overall and by slice."""
    after: dict[str, float]


class Manifest(_Record, frozen=True, kw_only=True):
    """Everything that a release claims about itself. See the module's docstring."""

    schema_version: int = PLAIN_VERSION
    model: ModelName
    version: Version
    parent: ReleaseRef | None = None
    description: str = ""
    output: OutputContract
    features_sha256: Sha256
    slices: dict[str, list[str]] = {}
    """Declared segments: name -> values."""
    datasets: list[DatasetRecord]
    snapshot: DataSnapshot | None = None
    """Where the rows of ``datasets`` are from; none in version 1."""
    provenance: Provenance
    variants: Annotated[list[VariantRecord], msgspec.Meta(min_length=1, max_length=32)]
    budget: Budget
    metrics: dict[str, float]
    """Test-set figures by name, such as ``accuracy`` or ``accuracy/side=left``."""
    main_metric: str = ""
    """The figure that gates watch; not told in version 1."""
    gates: list[GateResult]
    waivers: list[Waiver] = []
    label_delay_seconds: float = 0.0
    privacy: Privacy | None = None
    reproducible: bool | None = None
    """None until someone has rebuilt it."""
    input: Literal["features", "samples"] = "features"
    """What the model takes: float32 [batch, features], or raw windows [batch, samples, inputs]."""
    teacher: Teacher | None = None
    fine_tuning: FineTuning | None = None
    files: Annotated[list[FileEntry], msgspec.Meta(min_length=1, max_length=MAX_FILES)]

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        if len({path.lower() for path in paths}) != len(paths):
            raise ValueError("two files have the same path")
        if paths != sorted(paths):
            raise ValueError("files are not in order of their paths")
        missing = {variant.path for variant in self.variants} - set(paths)
        if missing:
            raise ValueError(f"variants name files that are not listed: {sorted(missing)}")
        embeds = bool(self.output.coordinates)
        if (self.schema_version == SCHEMA_VERSION) != embeds:
            raise ValueError(f"version {self.schema_version} is not that of its output")
        if any((variant.embedding is msgspec.UNSET) == embeds for variant in self.variants):
            raise ValueError("output and variants disagree on whether there is an embedding")

    def file(self, path: str) -> FileEntry:
        """The entry of one file; raise :class:`InvalidBundle` where there is none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise InvalidBundle(f"the manifest of {self.model}@{self.version} lists no {path}")

    def variant(self, target: str) -> VariantRecord:
        """The variant for a target; raise :class:`InvalidBundle` where there is none."""
        for variant in self.variants:
            if variant.target == target:
                return variant
        have = ", ".join(variant.target for variant in self.variants)
        raise InvalidBundle(
            f"{self.model}@{self.version} has no variant for target {target}; it has {have}"
        )


class _Versioned(msgspec.Struct):
    schema_version: int


def serialize(manifest: Manifest) -> bytes:
    """Canonical bytes: UTF-8 JSON, two-space indent, sorted keys, newline at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def parse(data: bytes) -> Manifest:
    """Parse manifest bytes whose digest or signature the caller has already checked.

    Raises:
        InvalidBundle: too large, not JSON, unknown schema version, or a field is out of range.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidBundle(f"manifest has {len(data)} bytes; the limit is {MAX_MANIFEST_BYTES}")
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version not in READ_VERSIONS:
            known = f"{READ_VERSIONS[0]} to {READ_VERSIONS[-1]}"
            raise InvalidBundle(
                f"manifest has schema version {version}; this Serinus reads {known}: "
                "update Serinus, or rebuild the bundle with this version"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"manifest is not valid: {quoted(error)}") from error
