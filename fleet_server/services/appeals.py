"""Contested predictions: opened, explained, decided; what is upheld corrects the label."""

import json
from typing import Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.labels import Labels, ToldLabel
from fleet_server.storage import appeals, audit, journal, labels, predictions
from fleet_server.storage.appeals import StoredAppeal
from fleet_server.storage.database import Database
from fleet_server.storage.labels import StoredLabel
from fleet_server.storage.predictions import StoredPrediction

Decision = Literal["upheld", "rejected", "withdrawn"]
STATES = ("open", *get_args(Decision))


class PredictionView(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its release and every label that was told of it."""

    prediction: StoredPrediction
    release: str | None
    """``model@version``; none where it is not approved here any more."""
    labels: list[StoredLabel]
    has_sample: bool
    """Whether what it was computed from is here."""


class AppealView(msgspec.Struct, frozen=True, kw_only=True):
    """One appeal with what it is about."""

    appeal: int
    state: str
    reason: str
    claimed: str | None
    contact: str
    opened_ms: int
    opened_by: str
    decision: str
    label: str | None
    decided_ms: int | None
    decided_by: str | None
    explanation: dict[str, Any] | None
    explained_ms: int | None
    about: PredictionView


class Appeals:
    """Use cases on appeals."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock, told: Labels) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._labels = told

    def prediction(self, name: str) -> PredictionView:
        """One prediction by its id; raise :class:`NotFound`."""
        with self._database.read() as connection:
            return self._about(connection, name)

    def open(
        self, prediction: str, *, reason: str, claimed: str | None, contact: str, by: str, role: str
    ) -> AppealView:
        """Contest a prediction.

        Raises:
            NotFound: the server does not know it: neither was it sampled, nor told with a label.
            Conflict: an appeal against it is open already.
            InvalidRequest: the release has no class ``claimed``.
        """
        with self._database.write() as connection:
            now = self._clock()
            about = self._about(connection, prediction)
            if appeals.open_on(connection, prediction) is not None:
                raise Conflict(f"an appeal against {prediction} is open already")
            self._require_class(connection, about, claimed)
            row = StoredAppeal(
                appeal=0,
                prediction=prediction,
                state="open",
                reason=reason,
                claimed=claimed,
                contact=contact,
                opened_ms=now,
                opened_by=by,
            )
            number = appeals.add(connection, row)
            text = f"appeal {number} opened by {by}: {reason}"
            journal.add_event(connection, now, "appeal", prediction, text, {"appeal": number})
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="appeal.open",
                subject=str(number), detail={"prediction": prediction},
            )  # fmt: skip
            return self._view(connection, msgspec.structs.replace(row, appeal=number))

    def decide(
        self, number: int, decision: str, *, text: str, label: str | None, by: str, role: str
    ) -> AppealView:
        """End an appeal. One that is upheld corrects the prediction's label.

        Raises:
            NotFound: there is no such appeal.
            Conflict: it is decided already.
            InvalidRequest: no such decision, or one that is upheld without a right answer.
        """
        if decision not in get_args(Decision):
            known = ", ".join(get_args(Decision))
            raise InvalidRequest(f"decision {decision[:64]!r} is not one of {known}")
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            if row.state != "open":
                raise Conflict(f"appeal {number} is {row.state} already")
            about = self._about(connection, row.prediction)
            right = label or row.claimed
            if decision == "upheld":
                self._require_answer(connection, about, right)
            decided = msgspec.structs.replace(
                row, state=decision, decision=text, decided_ms=now, decided_by=by,
                label=right if decision == "upheld" else None,
            )  # fmt: skip
            appeals.change(connection, decided)
            if decided.label is not None:
                told = ToldLabel(prediction_id=row.prediction, label=decided.label)
                self._labels.take_in(connection, [told], f"appeal {number}")
            said = f"appeal {number} {decision} by {by}: {text}"
            journal.add_event(connection, now, "appeal", row.prediction, said, {"appeal": number})
            audit.record(
                connection, at_ms=now, actor=by, role=role, action=f"appeal.{decision}",
                subject=str(number), detail={"prediction": row.prediction, "label": decided.label},
            )  # fmt: skip
            return self._view(connection, decided)

    def explain(
        self, number: int, explanation: dict[str, Any], *, by: str, role: str
    ) -> AppealView:
        """Keep what a model builder's machine found out about a contested answer."""
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            changed = msgspec.structs.replace(
                row, explanation=json.dumps(explanation, sort_keys=True), explained_ms=now
            )
            appeals.change(connection, changed)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="appeal.explain",
                subject=str(number),
            )  # fmt: skip
            return self._view(connection, changed)

    def sample(self, number: int) -> bytes:
        """The device's whole message on a contested prediction; raise :class:`NotFound`."""
        with self._database.read() as connection:
            found = predictions.sample(connection, _require(connection, number).prediction)
        if not found:
            raise NotFound(
                f"nothing of what the answer of appeal {number} was computed from is here: "
                "it was not sampled, or is older than [labels] sample_days"
            )
        return found

    def one(self, number: int) -> AppealView:
        """One appeal; raise :class:`NotFound`."""
        with self._database.read() as connection:
            return self._view(connection, _require(connection, number))

    def every(self, state: str | None, limit: int, before: int | None = None) -> list[AppealView]:
        """Appeals, newest first, of those before a number."""
        if state is not None and state not in STATES:
            raise InvalidRequest(f"state {state[:64]!r} is not one of {', '.join(STATES)}")
        with self._database.read() as connection:
            found = appeals.every(connection, [state] if state else STATES, limit, before)
            return [self._view(connection, row) for row in found]

    def _about(self, connection: sa.Connection, name: str) -> PredictionView:
        found = predictions.one(connection, name)
        if found is None:
            raise NotFound(
                f"prediction {name[:64]!r} is not known: devices send a sample of theirs; tell of "
                "it with a label and its answer (POST /api/v1/labels)"
            )
        release = self._catalog.get(connection, found.digest)
        return PredictionView(
            prediction=found,
            release=release.ref.name if release else None,
            labels=labels.revisions(connection, name),
            has_sample=bool(predictions.sample(connection, name)),
        )

    def _require_answer(
        self, connection: sa.Connection, about: PredictionView, label: str | None
    ) -> None:
        if label is None:
            raise InvalidRequest("an appeal is upheld with the right answer: name its label")
        if label == about.prediction.predicted:
            raise InvalidRequest(
                f"{label!r} is what was answered: reject the appeal, or name another label"
            )
        self._require_class(connection, about, label)

    def _require_class(
        self, connection: sa.Connection, about: PredictionView, label: str | None
    ) -> None:
        release = self._catalog.get(connection, about.prediction.digest)
        if label is None or release is None:
            return
        if label not in release.manifest.output.classes:
            known = ", ".join(release.manifest.output.classes)
            raise InvalidRequest(f"label {label[:64]!r} is not one of {known[:300]}")

    def _view(self, connection: sa.Connection, row: StoredAppeal) -> AppealView:
        fields = msgspec.structs.asdict(row)
        del fields["prediction"]
        explanation = json.loads(row.explanation) if row.explanation else None
        about = self._about(connection, row.prediction)
        return AppealView(**(fields | {"explanation": explanation, "about": about}))


def _require(connection: sa.Connection, number: int) -> StoredAppeal:
    row = appeals.one(connection, number)
    if row is None:
        raise NotFound(f"no appeal {number}; see: serinus appeal list")
    return row
