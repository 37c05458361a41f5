"""Who uses a model's answers: declared by people, seen by devices."""

import msgspec

from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.storage import audit, costs, declared, releases
from fleet_server.storage.database import Database
from fleet_server.storage.declared import Acknowledged, Declared

MAX_NAME = 256
MAX_MAJOR = 1_000_000


class ConsumerView(msgspec.Struct, frozen=True, kw_only=True):
    """One user of one model."""

    model: str
    consumer: str
    rows: int
    """That it asked for, as devices tell."""
    first_ms: int | None
    last_ms: int | None
    declared: bool
    owner: str
    note: str
    acknowledged: list[int]
    """MAJOR versions that it reads rightly."""


class Consumers:
    """Use cases on those who use answers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def every(self) -> list[ConsumerView]:
        """Who is declared, and who asks without being; those that ask most first."""
        with self._database.read() as connection:
            seen = {(row.model, row.consumer): row for row in costs.every_consumer(connection)}
            known = {(row.model, row.consumer): row for row in declared.every(connection)}
            agreed: dict[tuple[str, str], list[int]] = {}
            for row in declared.agreed(connection):
                agreed.setdefault((row.model, row.consumer), []).append(row.major)
        found = [
            ConsumerView(
                model=key[0],
                consumer=key[1],
                rows=seen[key].rows if key in seen else 0,
                first_ms=seen[key].first_ms if key in seen else None,
                last_ms=seen[key].last_ms if key in seen else None,
                declared=key in known,
                owner=known[key].owner if key in known else "",
                note=known[key].note if key in known else "",
                acknowledged=agreed.get(key, []),
            )
            for key in seen.keys() | known.keys()
        ]
        return sorted(found, key=lambda view: (view.model, -view.rows, view.consumer))

    def declare(
        self, model: str, consumer: str, owner: str, note: str, *, by: str, role: str
    ) -> ConsumerView:
        """Say that somebody uses a model's answers, and who answers for it.

        Raises:
            InvalidRequest: a name is empty, too long or not printable.
            NotFound: no release of the model was ever approved.
        """
        for text, least in ((consumer, 1), (owner, 1), (note, 0)):
            if not least <= len(text) <= MAX_NAME or not (text.isprintable() or not text):
                raise InvalidRequest(f"names have 1 to {MAX_NAME} printable letters")
        with self._database.write() as connection:
            now = self._clock()
            models = {name.partition("@")[0] for name in releases.names(connection).values()}
            if model not in models:
                raise NotFound(f"no release of {model[:64]!r} was ever approved")
            row = Declared(
                model=model,
                consumer=consumer,
                owner=owner,
                note=note,
                declared_ms=now,
                declared_by=by,
            )
            declared.declare(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="consumer.declare",
                subject=model, detail={"consumer": consumer, "owner": owner},
            )  # fmt: skip
        return self._one(model, consumer)

    def withdraw(self, model: str, consumer: str, *, by: str, role: str) -> None:
        """Say that it uses them no more; raise :class:`NotFound`."""
        with self._database.write() as connection:
            if not declared.withdraw(connection, model, consumer):
                raise _unknown(model, consumer)
            audit.record(
                connection, at_ms=self._clock(), actor=by, role=role, action="consumer.withdraw",
                subject=model, detail={"consumer": consumer},
            )  # fmt: skip

    def acknowledge(
        self, model: str, consumer: str, major: int, note: str, *, by: str, role: str
    ) -> ConsumerView:
        """Say that a consumer reads the answers of a MAJOR version rightly.

        Raises:
            InvalidRequest: no version.
            NotFound: it is not declared.
        """
        if not 0 <= major <= MAX_MAJOR or len(note) > MAX_NAME:
            raise InvalidRequest(f"a MAJOR version is 0 to {MAX_MAJOR}")
        with self._database.write() as connection:
            now = self._clock()
            if all(row.consumer != consumer for row in declared.every(connection, model)):
                raise _unknown(model, consumer)
            row = Acknowledged(
                model=model, consumer=consumer, major=major, note=note, at_ms=now, by=by
            )
            declared.acknowledge(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="consumer.acknowledge",
                subject=model, detail={"consumer": consumer, "major": major, "note": note},
            )  # fmt: skip
        return self._one(model, consumer)

    def _one(self, model: str, consumer: str) -> ConsumerView:
        return next(v for v in self.every() if (v.model, v.consumer) == (model, consumer))


def _unknown(model: str, consumer: str) -> NotFound:
    return NotFound(
        f"{consumer[:64]!r} is no declared consumer of {model[:64]!r}; see: serinus consumers"
    )
