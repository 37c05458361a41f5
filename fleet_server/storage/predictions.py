"""Queries on predictions that the server knows by their id."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import appeals, labels, predictions
from fleet_server.storage.upsert import insert


class StoredPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that a device gave."""

    prediction: str
    device: str
    digest: str
    target: str
    arm: str
    policy: str
    """``holdout`` where the device was held out of the model's rollouts, else ``policy``."""
    slices: dict[str, str]
    predicted: str
    confidence: float
    at_ms: int
    received_ms: int
    told_by: str = ""
    """Who told of the answer; empty where the device did, by a sample."""


_COLUMNS = [predictions.c[name] for name in StoredPrediction.__struct_fields__]


def add(connection: sa.Connection, rows: Sequence[StoredPrediction], sample: bytes = b"") -> int:
    """Store predictions that are not known yet; how many were not."""
    if not rows:
        return 0
    values = [msgspec.structs.asdict(row) | {"sample": sample} for row in rows]
    query = insert(connection, predictions).on_conflict_do_nothing()
    return sum(connection.execute(query.values(row)).rowcount for row in values)


def one(connection: sa.Connection, prediction: str) -> StoredPrediction | None:
    """One prediction; none where it is not known."""
    return many(connection, [prediction]).get(prediction)


def many(connection: sa.Connection, names: Sequence[str]) -> dict[str, StoredPrediction]:
    """Those of the named predictions that are known, by id."""
    query = sa.select(*_COLUMNS).where(predictions.c.prediction.in_(names))
    rows = connection.execute(query).mappings()
    return {row["prediction"]: record(row, StoredPrediction) for row in rows}


class LabelledConfidence(NamedTuple):
    """How sure an answer was, and whether it was right."""

    confidence: float
    right: bool


def labelled_confidences(
    connection: sa.Connection, digest: str, slice_: str | None, most: int
) -> list[LabelledConfidence]:
    """The newest answers of a release whose label was told; those of unknown confidence not."""
    query = (
        sa.select(
            predictions.c.confidence,
            (labels.c.label == predictions.c.predicted).label("right"),
            predictions.c.slices,
        )
        .join(labels, labels.c.prediction == predictions.c.prediction)
        .where(
            predictions.c.digest == digest,
            predictions.c.arm != "fallback",
            predictions.c.confidence > 0,
            labels.c.latest,
            labels.c.joined,
            labels.c.label.is_not(None),
        )
        .order_by(labels.c.received_ms.desc())
        .limit(most)
    )
    name, _, value = (slice_ or "").partition("=")
    return [
        LabelledConfidence(row.confidence, bool(row.right))
        for row in connection.execute(query)
        if not name or row.slices.get(name) == value
    ]


def sample(connection: sa.Connection, prediction: str) -> bytes:
    """The device's whole message; empty where it was not sent, or is old."""
    query = sa.select(predictions.c.sample).where(predictions.c.prediction == prediction)
    return connection.execute(query).scalar() or b""


def forget_samples(connection: sa.Connection, before_ms: int) -> None:
    """Drop messages that were received before, but those of predictions that are contested."""
    contested = sa.select(appeals.c.prediction)
    connection.execute(
        predictions.update()
        .where(
            predictions.c.received_ms < before_ms,
            predictions.c.sample != b"",
            predictions.c.prediction.not_in(contested),
        )
        .values(sample=b"")
    )


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop predictions that were received before, but contested ones: no label finds them."""
    contested = sa.select(appeals.c.prediction)
    connection.execute(
        predictions.delete().where(
            predictions.c.received_ms < before_ms, predictions.c.prediction.not_in(contested)
        )
    )
