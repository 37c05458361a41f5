"""Labels told to the server: joined with predictions by id, corrected, waited for."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_core.messages.telemetry import Arm, Name, Sample
from edge_core.release import ReleaseRef
from fleet_server.config import LabelsConfig
from fleet_server.services import holdouts
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest
from fleet_server.services.label_sums import LabelSums
from fleet_server.storage import labels, predictions
from fleet_server.storage.database import Database
from fleet_server.storage.labels import StoredLabel
from fleet_server.storage.predictions import StoredPrediction

MOST_AT_ONCE = 5000
FUTURE_MS = 3_600_000
"""A label may be known so much later than now: clocks of label stores are not ours."""
DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Became = Literal["joined", "corrected", "taken_back", "unchanged", "waiting", "refused"]


class ToldAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer that a label is for, as the caller kept it: for ids that were not sampled."""

    device: Name
    release: str
    """Digest of the release."""
    predicted: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    target: str = ""
    arm: Arm = "incumbent"
    slices: dict[Name, Name] = {}


class ToldLabel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One label as a caller tells it."""

    prediction_id: Name
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None
    """The class; none takes back what was told before."""
    known_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """When the truth was known; now where left out."""
    answer: ToldAnswer | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A label that was not taken."""

    prediction_id: str
    reason: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch of labels."""

    joined: int
    corrected: int
    taken_back: int
    unchanged: int
    waiting: int
    """Their predictions are not known here yet."""
    refused: list[Refused]


class Labels:
    """Use cases on labels."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        clock: Clock,
        config: LabelsConfig,
        *,
        drift_period_seconds: float,
    ) -> None:
        self._period_ms = round(drift_period_seconds * 1000)
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._config = config
        self._forgot_ms: int | None = None

    def take(self, told: Sequence[ToldLabel], by: str, models: Collection[str] = ()) -> Taken:
        """Store a batch of labels, each joined with its prediction where that is known.

        The same batch again changes nothing; of two labels for one prediction the later one
        counts. Where ``models`` are named, labels of all others are refused, and those whose
        prediction nobody knows yet.

        Raises:
            InvalidRequest: more than :data:`MOST_AT_ONCE`.
        """
        if len(told) > MOST_AT_ONCE:
            raise InvalidRequest(f"{len(told)} labels; {MOST_AT_ONCE} are taken at once")
        with self._database.write() as connection:
            return self.take_in(connection, told, by, models)

    def take_in(
        self,
        connection: sa.Connection,
        told: Sequence[ToldLabel],
        by: str,
        models: Collection[str] = (),
    ) -> Taken:
        """The same within a use case's transaction."""
        now = self._clock()
        sums = LabelSums(connection, now, now // self._period_ms)
        work = _Taking(connection, self._catalog, now, by, sums, models)
        for label in told:
            work.take(label)
        return work.finish()

    def forget(self) -> None:
        """Drop what is older than the settings say, once an hour; what it adds up to stays."""
        now = self._clock()
        if self._forgot_ms is not None and now - self._forgot_ms < HOUR_MS:
            return
        old = now - round(self._config.prediction_days * DAY_MS)
        with self._database.write() as connection:
            predictions.forget_samples(connection, now - round(self._config.sample_days * DAY_MS))
            predictions.forget(connection, old)
            lost = labels.forget(connection, old, now - round(self._config.waiting_days * DAY_MS))
            labels.add_figures(connection, "", {"never_joined": lost})
        self._forgot_ms = now


def sampled(
    connection: sa.Connection,
    sample: Sample,
    release: Release,
    payload: bytes,
    now_ms: int,
    period: int,
) -> None:
    """Keep a device's sampled prediction, so that a label finds it; one may wait for it already."""
    scores = np.frombuffer(sample.scores, "<f4")
    place = int(np.argmax(scores))
    row = StoredPrediction(
        prediction=sample.prediction_id,
        device=sample.device,
        digest=sample.release.digest,
        target=sample.target,
        arm=sample.arm,
        policy=holdouts.policy_of(connection, release.ref.model, sample.device),
        slices=dict(sample.slices),
        predicted=release.manifest.output.classes[place],
        confidence=float(scores[place]),
        at_ms=sample.at_ms,
        received_ms=now_ms,
    )
    if predictions.add(connection, [row], payload):
        _join_waiting(connection, row, release, LabelSums(connection, now_ms, period))


def _join_waiting(
    connection: sa.Connection, row: StoredPrediction, release: Release, sums: LabelSums
) -> None:
    found = labels.latest(connection, [row.prediction]).get(row.prediction)
    if found is None or found.joined or found.label is None:
        return
    if found.label not in release.manifest.output.classes:
        return
    labels.join(connection, row.prediction)
    sums.change(row, release, None, found.label, found.known_ms)
    sums.write()
    labels.add_figures(connection, release.ref.model, {"joined": 1})


class _Taking:
    """One transaction's worth of labels."""

    def __init__(
        self,
        connection: sa.Connection,
        catalog: Catalog,
        now_ms: int,
        by: str,
        sums: LabelSums,
        models: Collection[str],
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._now = now_ms
        self._by = by
        self._models = models
        self._told: dict[str, ToldLabel] = {}
        self._refused: list[Refused] = []
        self._sums = sums
        self._became: Counter[tuple[str, Became]] = Counter()

    def take(self, told: ToldLabel) -> None:
        """Note one label; a later one for the same prediction takes its place."""
        reason = self._nonsense(told)
        if reason:
            self._refused.append(Refused(prediction_id=told.prediction_id, reason=reason))
        else:
            self._told[told.prediction_id] = told

    def finish(self) -> Taken:
        """Join and store everything."""
        names = sorted(self._told)
        self._keep_answers()
        known = predictions.many(self._connection, names)
        before = labels.latest(self._connection, names)
        rows = [self._row(known.get(name), before.get(name), self._told[name]) for name in names]
        labels.add(self._connection, [row for row in rows if row is not None])
        self._sums.write()
        self._count()
        sums = Counter[Became]()
        for (_, became), number in self._became.items():
            sums[became] += number
        return Taken(
            joined=sums["joined"],
            corrected=sums["corrected"],
            taken_back=sums["taken_back"],
            unchanged=sums["unchanged"],
            waiting=sums["waiting"],
            refused=self._refused,
        )

    def _nonsense(self, told: ToldLabel) -> str:
        if told.known_ms is not None and told.known_ms > self._now + FUTURE_MS:
            return "known_ms lies in the future"
        if told.answer is None:
            return ""
        if told.answer.at_ms > self._now + FUTURE_MS:
            return "answer.at_ms lies in the future"
        release = self._release(told.answer.release)
        if release is None:
            return f"no release {told.answer.release[:64]!r} was ever approved"
        if foreign := self._foreign(release):
            return foreign
        return _not_declared(told.answer, release)

    def _foreign(self, release: Release | None) -> str:
        """Why a label of a release is not the caller's to tell; empty where it is."""
        if not self._models or (release is not None and release.ref.model in self._models):
            return ""
        what = f"is of {release.ref.model}" if release else "is not known yet"
        return f"the prediction {what}, and this token is for {', '.join(self._models)} only"

    def _release(self, digest: str) -> Release | None:
        return self._catalog.get(self._connection, digest)

    def _keep_answers(self) -> None:
        """Store the answers that callers told of; what a device told stays as it is."""
        rows = []
        for told in self._told.values():
            if told.answer is None:
                continue
            release = self._release(told.answer.release)
            assert release is not None  # or the label would have been refused
            rows.append(self._prediction(told.prediction_id, told.answer, release.ref))
        predictions.add(self._connection, rows)

    def _prediction(self, name: str, answer: ToldAnswer, ref: ReleaseRef) -> StoredPrediction:
        return StoredPrediction(
            prediction=name,
            device=answer.device,
            digest=ref.digest,
            target=answer.target,
            arm=answer.arm,
            policy=holdouts.policy_of(self._connection, ref.model, answer.device),
            slices=answer.slices,
            predicted=answer.predicted,
            confidence=answer.confidence,
            at_ms=answer.at_ms,
            received_ms=self._now,
            told_by=self._by,
        )

    def _row(
        self, known: StoredPrediction | None, before: StoredLabel | None, told: ToldLabel
    ) -> StoredLabel | None:
        """The label to store; none where it says nothing new."""
        release = self._release(known.digest) if known else None
        reason = self._foreign(release)
        if release is not None and not reason and not _fits(told.label, release):
            reason = f"{release.ref.name} has no class {(told.label or '')[:64]!r}"
        if reason:
            self._refused.append(Refused(prediction_id=told.prediction_id, reason=reason))
            return None
        model = release.ref.model if release else ""
        stood = before.label if before and before.joined else None
        if before is not None and before.label == told.label and before.joined == bool(known):
            self._became[model, "unchanged"] += 1
            return None
        row = StoredLabel(
            prediction=told.prediction_id,
            revision=before.revision + 1 if before else 1,
            label=told.label,
            known_ms=self._now if told.known_ms is None else told.known_ms,
            received_ms=self._now,
            told_by=self._by,
            joined=known is not None,
        )
        if known is None:
            self._became[model, "waiting"] += 1
            return row
        assert release is not None  # or its answer would not be known
        self._sums.change(known, release, stood, told.label, row.known_ms)
        self._became[model, _became(stood, told.label)] += 1
        return row

    def _count(self) -> None:
        by_model: dict[str, Counter[str]] = {}
        for (model, became), number in self._became.items():
            if became not in ("unchanged", "waiting"):
                by_model.setdefault(model, Counter())[became] += number
        for model, counts in by_model.items():
            labels.add_figures(self._connection, model, counts)


def _became(before: str | None, now: str | None) -> Became:
    if now is None:
        return "unchanged" if before is None else "taken_back"
    return "joined" if before is None else "corrected"


def _fits(label: str | None, release: Release) -> bool:
    return label is None or label in release.manifest.output.classes


def _not_declared(answer: ToldAnswer, release: Release) -> str:
    """What of an answer the release's manifest does not know; empty where nothing is."""
    if answer.predicted not in release.manifest.output.classes:
        return f"{release.ref.name} has no class {answer.predicted[:64]!r}"
    if answer.target and answer.target not in release.targets:
        return f"{release.ref.name} has no target {answer.target[:64]!r}"
    return _undeclared(answer.slices, release.manifest.slices)


def _undeclared(slices: Mapping[str, str], declared: Mapping[str, list[str]]) -> str:
    wrong = (f"{n}={v}" for n, v in sorted(slices.items()) if v not in declared.get(n, []))
    name = next(wrong, "")
    return f"no slice {name[:128]!r} is declared" if name else ""
