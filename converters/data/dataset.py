"""The rows of a build, made by the one feature path: windows of recordings, requests of a log."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_core.bundle.manifest import DatasetRecord, DataSnapshot
from edge_core.errors import InvalidInput, SerinusError
from edge_core.features.definition import FeatureDefinition
from edge_core.features.evaluation import Evaluator
from edge_core.features.logs import Log
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

Role = Literal["train", "calibration", "test", "golden"]
ROLES: tuple[Role, ...] = ("train", "calibration", "test", "golden")

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRecording:
    """One uninterrupted stretch of samples that a recipe offers for one role."""

    samples: Float32
    """float32 [n, inputs], in the units of the feature definition."""
    label: str
    entity: str
    """Whom and which part it comes from; no entity may serve two roles."""
    role: Role
    slices: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledLog:
    """Events, and requests with what came of them."""

    log: Log
    labels: Sequence[str]
    """Of each request."""
    roles: Sequence[Role | None]
    """Of each request; none for one that is left out."""
    slices: Mapping[str, Sequence[str]]
    """Slice name -> value of each request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """All windows, or all requests, of one role."""

    samples: Float32
    """Raw values, float32 [rows, samples, inputs]; of requests their numbers, as one sample."""
    features: Float32
    """float32 [rows, features]."""
    labels: Int64
    """Class numbers, int64 [rows]."""
    slices: Mapping[str, tuple[str, ...]]
    """Slice name -> value of each row."""
    entities: tuple[str, ...]
    """In order of first use, each once; empty for requests."""
    times_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Of requests, int64 [rows], in order; empty for windows."""
    places: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Of requests in the log, int64 [rows]; empty for windows."""

    def digest(self) -> str:
        """Sha256 over samples and labels; of requests, over times and features, too.

        Their events show in nothing but their features.
        """
        digest = hashlib.sha256(np.ascontiguousarray(self.samples, "<f4").data)
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        if len(self.times_us):
            digest.update(np.ascontiguousarray(self.times_us, "<i8").data)
            digest.update(np.ascontiguousarray(self.features, "<f4").data)
        return digest.hexdigest()

    def only(self, rows: Int64) -> "Rows":
        """Some of them, by place."""
        return replace(
            self,
            samples=self.samples[rows],
            features=self.features[rows],
            labels=self.labels[rows],
            slices={name: tuple(found[i] for i in rows) for name, found in self.slices.items()},
            times_us=self.times_us[rows] if len(self.times_us) else self.times_us,
            places=self.places[rows] if len(self.places) else self.places,
        )

    def mask(self, name: str, value: str) -> npt.NDArray[np.bool_]:
        """Which rows belong to a slice, bool [rows]."""
        return np.array([entry == value for entry in self.slices[name]], dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The rows of every role, fixed."""

    definition: FeatureDefinition
    classes: tuple[str, ...]
    rows: Mapping[Role, Rows]
    log: Log | None = None
    """Where all requests and their events are from."""
    golden_log: Log | None = None
    """That of the golden rows: short, and from its own beginning."""
    data: DataSnapshot | None = None
    """The files that all of it is from; none where a recipe's code offered it directly."""

    def digest(self) -> str:
        """Sha256 over all roles' rows and features."""
        digest = hashlib.sha256()
        for role in ROLES:
            digest.update(self.rows[role].digest().encode())
            digest.update(np.ascontiguousarray(self.rows[role].features, "<f4").data)
        return digest.hexdigest()

    def records(self, name: str, source: str) -> list[DatasetRecord]:
        """What the manifest says of the data."""
        return [
            DatasetRecord(
                role=role,
                name=name,
                source=source,
                sha256=self.rows[role].digest(),
                rows=len(self.rows[role]),
                entities=list(self.rows[role].entities),
                first=span(self.rows[role].times_us)[0],
                last=span(self.rows[role].times_us)[1],
            )
            for role in ROLES
        ]


def cut(
    definition: WindowDefinition,
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    recordings: Iterable[LabelledRecording],
) -> Snapshot:
    """Cut recordings into windows and compute their features.

    Raises:
        InvalidInput: unknown label or slice value, samples that the definition refuses, or a role
            without rows.
    """
    by_role: dict[Role, list[LabelledRecording]] = {role: [] for role in ROLES}
    for recording in recordings:
        check(recording, classes, slices)
        by_role[recording.role].append(recording)
    rows = {role: _rows(definition, classes, slices, by_role[role]) for role in ROLES}
    check_roles(rows)
    return Snapshot(definition=definition, classes=tuple(classes), rows=rows)


def check_roles(rows: Mapping[Role, Rows]) -> None:
    """Every role has rows; raise :class:`InvalidInput` where one has none."""
    for role, found in rows.items():
        if not len(found):
            raise InvalidInput(f"the recipe offers no {role} rows; every role needs some")


def check_disjoint(snapshot: Snapshot) -> None:
    """No entity and no window serves two roles; raise :class:`InvalidInput` where one does.

    Requests of one log share entities by their nature; :mod:`converters.leakage` looks at them.
    """
    entities: dict[str, Role] = {}
    windows: dict[bytes, Role] = {}
    for role, rows in snapshot.rows.items():
        for entity in rows.entities:
            if entities.setdefault(entity, role) != role:
                raise InvalidInput(f"{entity} serves {entities[entity]} and {role}; split them")
        for window in rows.samples if snapshot.log is None else ():
            key = hashlib.sha256(np.ascontiguousarray(window, "<f4").data).digest()
            if windows.setdefault(key, role) != role:
                raise InvalidInput(f"the same window serves {windows[key]} and {role}; split them")


def check(
    recording: LabelledRecording, classes: Sequence[str], slices: Mapping[str, Sequence[str]]
) -> None:
    """Refuse an unknown role, label or slice value.

    Raises:
        InvalidInput: names the recording's entity and what is known.
    """
    if recording.role not in ROLES:
        raise InvalidInput(
            f"{recording.entity}: unknown role {recording.role!r}; known are {', '.join(ROLES)}"
        )
    if recording.label not in classes:
        raise InvalidInput(
            f"{recording.entity}: label {recording.label!r} is not a class; add it to "
            f"output.classes or leave the recording out"
        )
    for name, values in slices.items():
        if recording.slices.get(name) not in values:
            raise InvalidInput(
                f"{recording.entity}: slice {name} is {recording.slices.get(name)!r}; declared "
                f"values are {', '.join(values)}"
            )


def span(times_us: Int64) -> tuple[str, str] | tuple[None, None]:
    """The first and the last of some moments in ISO 8601, to the second; none of no moments."""
    if not len(times_us):
        return None, None
    return _iso(int(times_us.min())), _iso(int(times_us.max()))


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def _rows(
    definition: WindowDefinition,
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    recordings: Sequence[LabelledRecording],
) -> Rows:
    window, evaluator = definition.window, Evaluator(definition)
    samples = [np.empty((0, window.samples, len(definition.inputs)), np.float32)]
    features = [np.empty((0, len(definition.feature_names)), np.float32)]
    labels: list[int] = []
    values: dict[str, list[str]] = {name: [] for name in slices}
    for recording in recordings:
        times = np.arange(len(recording.samples)) * 1_000_000 / window.rate_hz
        try:
            windows = FeatureStream(definition, evaluator).push(
                np.rint(times).astype(np.int64), recording.samples
            )
        except SerinusError as error:
            raise InvalidInput(f"{recording.entity}: {error}") from error
        count = len(windows.features)
        samples.append(windows.raw)
        features.append(windows.features)
        labels += [classes.index(recording.label)] * count
        for name, found in values.items():
            found += [recording.slices[name]] * count
    return Rows(
        samples=np.concatenate(samples),
        features=np.concatenate(features),
        labels=np.array(labels, dtype=np.int64),
        slices={name: tuple(found) for name, found in values.items()},
        entities=tuple(dict.fromkeys(recording.entity for recording in recordings)),
    )
