"""Queries on labels, outcomes and delays."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain.labelling import OutcomeKey
from fleet_server.storage.rows import record
from fleet_server.storage.tables import label_delays, label_figures, labels, outcomes
from fleet_server.storage.upsert import insert


class StoredLabel(msgspec.Struct, frozen=True, kw_only=True):
    """One label as it was told; without a class it takes the earlier ones back."""

    prediction: str
    revision: int
    label: str | None
    known_ms: int
    received_ms: int
    told_by: str
    latest: bool = True
    joined: bool = False


def latest(connection: sa.Connection, names: Sequence[str]) -> dict[str, StoredLabel]:
    """The label that stands for each of these predictions, by id."""
    query = sa.select(labels).where(labels.c.prediction.in_(names), labels.c.latest)
    rows = connection.execute(query).mappings()
    return {row["prediction"]: record(row, StoredLabel) for row in rows}


def revisions(connection: sa.Connection, prediction: str) -> list[StoredLabel]:
    """Every label that was told for a prediction, oldest first."""
    query = sa.select(labels).where(labels.c.prediction == prediction)
    rows = connection.execute(query.order_by(labels.c.revision)).mappings()
    return [record(row, StoredLabel) for row in rows]


def add(connection: sa.Connection, rows: Sequence[StoredLabel]) -> None:
    """Store labels, each of another prediction, in the place of those that stood."""
    if not rows:
        return
    names = [row.prediction for row in rows]
    connection.execute(
        labels.update().where(labels.c.prediction.in_(names), labels.c.latest).values(latest=False)
    )
    connection.execute(labels.insert(), [msgspec.structs.asdict(row) for row in rows])


def join(connection: sa.Connection, prediction: str) -> None:
    """Note that the label which stands has found its prediction."""
    connection.execute(
        labels.update()
        .where(labels.c.prediction == prediction, labels.c.latest)
        .values(joined=True)
    )


def waiting(connection: sa.Connection) -> int:
    """Labels whose prediction is not known."""
    query = sa.select(sa.func.count()).select_from(labels)
    found = connection.execute(query.where(labels.c.latest, ~labels.c.joined))
    return int(found.scalar_one())


def forget(connection: sa.Connection, joined_before_ms: int, waiting_before_ms: int) -> int:
    """Drop old labels; what the joined ones add up to stays. Returns how many waited in vain."""
    connection.execute(
        labels.delete().where(labels.c.joined, labels.c.received_ms < joined_before_ms)
    )
    done = connection.execute(
        labels.delete().where(~labels.c.joined, labels.c.received_ms < waiting_before_ms)
    )
    return int(done.rowcount)


def add_outcomes(connection: sa.Connection, counts: Mapping[OutcomeKey, int]) -> None:
    """Add to the sums; counts may be negative where labels were corrected."""
    rows = [key._asdict() | {"count": number} for key, number in sorted(counts.items())]
    if not rows:
        return
    query = insert(connection, outcomes)
    connection.execute(
        query.on_conflict_do_update(
            index_elements=list(OutcomeKey._fields),
            set_={"count": outcomes.c["count"] + query.excluded["count"]},
        ),
        rows,
    )
    connection.execute(outcomes.delete().where(outcomes.c["count"] == 0))


def outcomes_of(
    connection: sa.Connection, digests: Sequence[str], since_day: int
) -> Counter[OutcomeKey]:
    """Sums of some releases since a day."""
    query = sa.select(outcomes).where(
        outcomes.c.digest.in_(digests), outcomes.c.day >= since_day, outcomes.c["count"] > 0
    )
    rows = connection.execute(query).mappings()
    return Counter(
        {OutcomeKey(**{n: row[n] for n in OutcomeKey._fields}): row["count"] for row in rows}
    )


def add_delays(connection: sa.Connection, counts: Mapping[tuple[str, int], int]) -> None:
    """Add delays of first labels by (digest, bin)."""
    query = insert(connection, label_delays)
    rows = [{"digest": d, "bin": b, "count": n} for (d, b), n in sorted(counts.items())]
    if rows:
        added = {"count": label_delays.c["count"] + query.excluded["count"]}
        connection.execute(
            query.on_conflict_do_update(index_elements=["digest", "bin"], set_=added), rows
        )


def delays(connection: sa.Connection, digests: Sequence[str]) -> dict[int, int]:
    """Bin -> first labels, over some releases."""
    total = sa.func.sum(label_delays.c["count"])
    query = sa.select(label_delays.c.bin, total).where(label_delays.c.digest.in_(digests))
    rows = connection.execute(query.group_by(label_delays.c.bin).order_by(label_delays.c.bin))
    return {number: int(count) for number, count in rows}


def add_figures(connection: sa.Connection, model: str, counts: Mapping[str, int]) -> None:
    """Count what became of labels of a model."""
    query = insert(connection, label_figures)
    rows = [{"model": model, "what": w, "count": n} for w, n in sorted(counts.items()) if n]
    if rows:
        added = {"count": label_figures.c["count"] + query.excluded["count"]}
        connection.execute(
            query.on_conflict_do_update(index_elements=["model", "what"], set_=added), rows
        )


def figures(connection: sa.Connection, model: str) -> dict[str, int]:
    """What became of a model's labels."""
    query = sa.select(label_figures.c.what, label_figures.c["count"])
    return {
        what: int(count)
        for what, count in connection.execute(query.where(label_figures.c.model == model))
    }
