"""Devices as operators see them: sites, tags, retirement, and groups by query."""

import re
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain import query as queries
from fleet_server.domain.query import InvalidQuery, Term
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import audit, device_query, journal, registry
from fleet_server.storage.database import Database
from fleet_server.storage.registry import Group

NAME = re.compile(r"^[a-z][a-z0-9_-]{0,63}\Z")
"""Of groups, sites and tags."""
MOST_TAGS = 32
"""Of one device."""
MOST_DEVICES = 100_000
PART = 500
"""Devices that one statement names."""


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """A group with those in it now."""

    name: str
    query: str
    set_ms: int
    set_by: str
    devices: list[str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What to set; what is left out stays."""

    site: str | None = None
    """Empty: nowhere."""
    retired: bool | None = None
    add_tags: list[str] = []
    remove_tags: list[str] = []


class Groups:
    """Use cases on groups, sites and tags."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def label(self, query: str, change: Change, *, by: str, role: str) -> list[str]:
        """Set facts of all devices that a query or a group's name means; their names.

        Raises:
            InvalidRequest: no query, or a site or tag that is no name.
            NotFound: it means no device.
            Conflict: a device would have more than :data:`MOST_TAGS`.
        """
        _check(change)
        with self._database.write() as connection:
            now = self._clock()
            names = sorted(members(connection, query, now))
            if not names:
                raise NotFound(f"{query[:100]!r} means no device")
            self._set(connection, names, change, now, by)
            told = msgspec.to_builtins(change) | {"devices": len(names)}
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="device.label",
                subject=query[:256], detail=told,
            )  # fmt: skip
            text = f"{by} labels {len(names)} devices: {_words(change)}"
            journal.add_event(connection, now, "device", query[:200], text)
            return names

    def _set(
        self, connection: sa.Connection, names: Sequence[str], change: Change, now: int, by: str
    ) -> None:
        values: dict[str, object] = {}
        if change.site is not None:
            values["site"] = change.site
        if change.retired is not None:
            values["retired"] = change.retired
        for start in range(0, len(names), PART):
            part = names[start : start + PART]
            if values:
                registry.set_facts(connection, part, values, now, by)
            registry.remove_tags(connection, part, change.remove_tags)
            registry.add_tags(connection, part, change.add_tags)
            if change.add_tags and registry.most_tags(connection, part) > MOST_TAGS:
                raise Conflict(f"a device has at most {MOST_TAGS} tags")

    def every(self) -> list[Group]:
        """All groups."""
        with self._database.read() as connection:
            return registry.every_group(connection)

    def one(self, name: str) -> GroupView:
        """A group and who is in it; raise :class:`NotFound`."""
        with self._database.read() as connection:
            found = _require(connection, name)
            names = members(connection, found.query, self._clock())
            return GroupView(**msgspec.structs.asdict(found), devices=sorted(names))

    def save(self, name: str, query: str, *, by: str, role: str) -> Group:
        """Save a query under a name; raise :class:`InvalidRequest` where either is none."""
        if not NAME.match(name):
            raise InvalidRequest(f"{name[:64]!r} is no name: small letters, digits, - and _")
        _parse(query)
        with self._database.write() as connection:
            now = self._clock()
            row = Group(name=name, query=query, set_ms=now, set_by=by)
            registry.put_group(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="group.save", subject=name,
                detail={"query": query},
            )  # fmt: skip
            return row

    def drop(self, name: str, *, by: str, role: str) -> None:
        """Remove a group; its devices stay as they are. Raise :class:`NotFound`."""
        with self._database.write() as connection:
            _require(connection, name)
            registry.drop_group(connection, name)
            audit.record(
                connection, at_ms=self._clock(), actor=by, role=role, action="group.drop",
                subject=name,
            )  # fmt: skip


def members(connection: sa.Connection, text: str, now_ms: int) -> set[str]:
    """Devices that a group's name or a query means.

    Raises:
        InvalidRequest: no such group, and no query either.
    """
    found = registry.group(connection, text) if NAME.match(text) else None
    if NAME.match(text) and found is None:
        raise InvalidRequest(f"no group {text!r}; a query has terms such as site=berlin")
    terms = _parse(found.query if found else text)
    return set(registry.names_that_fit(connection, terms, now_ms))


def condition(connection: sa.Connection, text: str, now_ms: int) -> sa.ColumnElement[bool]:
    """The same as SQL, for lists that are read in parts; raises as :func:`members`."""
    found = registry.group(connection, text) if NAME.match(text) else None
    if NAME.match(text) and found is None:
        raise InvalidRequest(f"no group {text!r}; a query has terms such as site=berlin")
    terms = _parse(found.query if found else text)
    return device_query.condition(terms, now_ms, connection.dialect.name)


def _parse(text: str) -> tuple[Term, ...]:
    try:
        return queries.parse(text)
    except InvalidQuery as error:
        raise InvalidRequest(str(error)) from error


def _require(connection: sa.Connection, name: str) -> Group:
    found = registry.group(connection, name)
    if found is None:
        raise NotFound(f"no group {name[:64]!r}; see: serinus group list")
    return found


def _check(change: Change) -> None:
    for name in (*([change.site] if change.site else []), *change.add_tags):
        if not NAME.match(name):
            raise InvalidRequest(f"{name[:64]!r} is no name: small letters, digits, - and _")
    if change == Change():
        raise InvalidRequest("nothing to set: name a site, tags, or retired")


def _words(change: Change) -> str:
    told = [
        f"site {change.site or 'none'}" if change.site is not None else "",
        {True: "retired", False: "back in service", None: ""}[change.retired],
        f"tagged {', '.join(change.add_tags)}" if change.add_tags else "",
        f"no longer {', '.join(change.remove_tags)}" if change.remove_tags else "",
    ]
    return "; ".join(filter(None, told))
