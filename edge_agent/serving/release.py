"""A release in memory: everything of its bundle that answering a request needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from edge_agent.inference.absent import AbsentModel
from edge_agent.inference.session import Float32, Session, open_session, placed
from edge_agent.serving.memory import Memory
from edge_agent.serving.request_memory import RequestMemory
from edge_agent.serving.window_memory import WindowMemory
from edge_core import baseline as baselines
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.golden import Golden
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle, InvalidMessage, Unavailable
from edge_core.features import definition as definitions
from edge_core.features import redaction
from edge_core.features.evaluation import Evaluator
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.window_definition import WindowDefinition
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import (
    MAX_CONSUMERS,
    TAG_BYTES,
    Cost,
    PairedCounts,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import histogram, latency
from edge_core.stats.histogram import Layout

MAX_NAME = 64
MAX_NUMBER = 2**40
LARGEST_U32 = 2**32 - 1


class Parted(NamedTuple):
    """The outputs of a model."""

    logits: Float32
    """float32 [batch, classes]."""
    embedding: Float32 | None
    """float32 [batch, coordinates]; none where the release has none, or no model answered."""


class LoadedRelease:
    """One release with its session open. Built from files that were verified before."""

    def __init__(
        self, *, ref: ReleaseRef, manifest: Manifest, target: str, folder: Path, session: Session
    ) -> None:
        self.ref = ref
        self.manifest = manifest
        self.target = target
        self.variant = manifest.variant(target)
        self.session = session
        self.placed = placed(session, self.variant)
        self.classes = manifest.output.classes
        self._coordinates = manifest.output.coordinates
        self.definition = definitions.parse(
            folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
        )
        self.redaction = redaction.of(self.definition, manifest)
        self.definition_digest = definitions.digest(self.definition)
        self._windows = (
            Evaluator(self.definition) if isinstance(self.definition, WindowDefinition) else None
        )
        self.window_shape = self.definition.raw_shape if self._windows is not None else None
        """Samples and inputs of one window; none where the features are those of requests."""
        self.reference = histogram.parse(
            folders.read_limited(folder / manifests.REFERENCE, histogram.MAX_REFERENCE_BYTES)
        )
        self.layout = Layout(self.reference)
        self.window_schema = WindowSchema.of(
            ref, manifest, self.reference, self.definition.raw_shape[0]
        )
        self.baseline = baselines.parse(
            folders.read_limited(folder / manifests.FALLBACK, baselines.MAX_BASELINE_BYTES)
        )
        self._folder = folder
        self._check()

    @classmethod
    def open(cls, folder: Path, target: str) -> Self:
        """Load the variant for ``target`` from a bundle folder.

        Raises:
            InvalidBundle: a file is missing, malformed, or refused by the runtime.
            Unavailable: the runtime is not installed.
        """
        manifest = folders.read(folder)
        variant = manifest.variant(target)
        return cls(
            ref=folders.ref(folder),
            manifest=manifest,
            target=target,
            folder=folder,
            session=open_session(folder / variant.path, variant),
        )

    @classmethod
    def open_without_model(cls, folder: Path, target: str) -> Self:
        """Load everything but the model and its runtime: the fallback answers every row.

        Raises:
            InvalidBundle: a file is missing or malformed.
        """
        manifest = folders.read(folder)
        return cls(
            ref=folders.ref(folder),
            manifest=manifest,
            target=target,
            folder=folder,
            session=AbsentModel(len(manifest.output.classes) + manifest.output.coordinates),
        )

    def _check(self) -> None:
        """Refuse parts that do not fit each other, before a request finds out."""
        features, classes = self.definition.feature_names, self.classes
        channels = [channel.name for channel in self.reference.channels[:-2]]
        if channels != [*self.definition.input_names, *features, *self.reference.projections]:
            raise InvalidBundle(
                f"{self.ref.name}: {manifests.REFERENCE} and {manifests.FEATURES} name other "
                "channels; build the bundle again"
            )
        if self.reference.coordinates != self._coordinates:
            raise InvalidBundle(
                f"{self.ref.name} declares an embedding of {self._coordinates} coordinates, and "
                f"{manifests.REFERENCE} projects {self.reference.coordinates}; build the bundle "
                "again"
            )
        self._check_message()
        self._check_requests()
        probe = np.zeros((1, len(features)), np.float32)
        window = np.zeros((1, *self.definition.raw_shape), np.float32)
        try:
            answered = self.session.run(self.given(window, probe)).shape
            simple = self.fallback_logits(probe).shape
        except (ValueError, Unavailable) as error:
            raise InvalidBundle(
                f"{self.ref.name} does not take its {self.manifest.input}: {error}"
            ) from error
        wanted = (1, len(classes) + self._coordinates)
        if answered != wanted or simple != (1, len(classes)):
            beside = f" and an embedding of {self._coordinates}" if self._coordinates else ""
            raise InvalidBundle(
                f"{self.ref.name} declares {len(classes)} classes{beside}; model and fallback "
                f"answer {answered} and {simple}"
            )

    def _check_requests(self) -> None:
        """Refuse a definition of requests that cannot be compiled, or a model without features."""
        if not isinstance(self.definition, RequestDefinition):
            return
        if self.manifest.input != "features":
            raise InvalidBundle(
                f"{self.ref.name} answers requests, and its model takes {self.manifest.input}; "
                "build one that takes features"
            )
        RequestEvaluator(self.definition)

    def _check_message(self) -> None:
        """Refuse a layout whose statistics no message can hold."""
        schema = self.window_schema
        labels = _awkward(schema.confidence_size)
        widest = StatsWindow(
            device="d" * MAX_NAME,
            epoch="e" * MAX_NAME,
            sequence=MAX_NUMBER,
            opened_ms=MAX_NUMBER,
            closed_ms=2 * MAX_NUMBER,
            release=self.ref,
            target=self.target,
            arm="shadow",
            rollout="r" * MAX_NAME,
            slices={name: values[-1] for name, values in schema.slices if values},
            rows=MAX_NUMBER,
            counts=_awkward(self.layout.total),
            latency=_awkward(latency.BINS),
            right=labels,
            wrong=labels,
            paired=PairedCounts(agree=MAX_NUMBER, both_right=MAX_NUMBER),
            paired_with=self.ref.digest[: 2 * TAG_BYTES],
            cost=Cost(
                cpu_us=MAX_NUMBER,
                consumers={f"{n:064}": MAX_NUMBER for n in range(MAX_CONSUMERS + 1)},
            ),
        )
        try:
            codec.encode(windows.pack(widest, schema))
        except InvalidMessage as error:
            raise InvalidBundle(
                f"{self.ref.name} has {self.layout.total} counts, too many for one message "
                f"({error}); build it with fewer bins"
            ) from error

    @property
    def kind(self) -> str:
        """What its features are of: ``windows`` or ``requests``."""
        return "windows" if self._windows is not None else "requests"

    @property
    def evaluator(self) -> Evaluator:
        """The compiled features of windows."""
        assert self._windows is not None, "the features are those of requests"
        return self._windows

    def begin(self, *, tolerates: bool = False) -> Memory:
        """An empty memory for this release's features.

        Args:
            tolerates: whether work is taken that lacks inputs which the definition refuses.
        """
        match self.definition:
            case WindowDefinition():
                return WindowMemory(self.evaluator, tolerates=tolerates, whole=self._raw)
            case RequestDefinition():
                return RequestMemory(RequestEvaluator(self.definition), tolerates=tolerates)

    def restore(self, parts: Mapping[str, bytes], *, tolerates: bool = False) -> Memory:
        """The memory that a snapshot was taken of; raise :class:`InvalidInput` for other bytes."""
        match self.definition:
            case WindowDefinition():
                return WindowMemory.restore(
                    self.evaluator, parts, tolerates=tolerates, whole=self._raw
                )
            case RequestDefinition():
                return RequestMemory.restore(self.definition, parts, tolerates=tolerates)

    @property
    def _raw(self) -> bool:
        return self.manifest.input == "samples"

    def logits(self, raw: Float32, features: Float32) -> Float32:
        """As :meth:`answer`, the logits alone: float32 [batch, classes]."""
        return self.answer(raw, features).logits

    def answer(self, raw: Float32, features: Float32) -> Parted:
        """Run the model on whichever of both it takes.

        Args:
            raw: windows as they came, float32 [batch, samples, inputs].
            features: of the same windows, float32 [batch, features].
        """
        return self.parted(self.session.run(self.given(raw, features)))

    def parted(self, answers: Float32) -> Parted:
        """What a session gave, float32 [batch, columns], as logits and embedding."""
        if not self._coordinates:
            return Parted(answers, None)
        classes = len(self.classes)
        return Parted(answers[:, :classes], answers[:, classes:])

    def given(self, raw: Float32, features: Float32) -> Float32:
        """What the model takes of rows: their features, or their rounded raw windows."""
        return features if self.manifest.input == "features" else self.evaluator.rounded(raw)

    def fallback_logits(self, features: Float32) -> Float32:
        """Run the baseline, float32 [batch, features] -> float32 [batch, classes]."""
        return self.baseline.logits(features, self.definition.feature_names)

    def golden(self) -> Golden:
        """Read the golden rows; raise :class:`InvalidBundle` where they are malformed."""
        found = goldens.unpack(
            folders.read_limited(self._folder / manifests.GOLDEN, goldens.MAX_GOLDEN_BYTES)
        )
        if self.target not in found.expected:
            raise InvalidBundle(f"{self.ref.name} holds no golden answers for {self.target}")
        if self._coordinates and self.target not in found.embeddings:
            raise InvalidBundle(f"{self.ref.name} holds no golden embedding for {self.target}")
        return found

    def shadow_problem(self, shadow: "LoadedRelease") -> str:
        """Why another release cannot run as this one's shadow; empty where it can.

        A shadow answers the same rows: of windows it may compute other features, and of requests
        it can only take these, since no events were kept for others.
        """
        mine, theirs = self.definition, shadow.definition
        if isinstance(mine, WindowDefinition) and isinstance(theirs, WindowDefinition):
            if mine.window == theirs.window and mine.input_names == theirs.input_names:
                return ""
            return f"{shadow.ref.name} uses other windows than {self.ref.name}"
        if self.definition_digest == shadow.definition_digest:
            return ""
        return (
            f"{shadow.ref.name} has another feature definition than {self.ref.name}, so nothing "
            "is remembered for its features"
        )


def _awkward(size: int) -> bytes:
    """Counts that no code makes short: one and a great many by turns."""
    counts = np.where(np.arange(size) % 2, LARGEST_U32, 1)
    return counts.astype("<i8").tobytes()
