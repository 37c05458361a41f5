"""A query over devices as SQL: the same devices that :func:`query.holds` finds."""

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from fleet_server.domain.query import Term
from fleet_server.storage.tables import device_facts, device_tags, devices, releases


def condition(terms: tuple[Term, ...], now_ms: int) -> sa.ColumnElement[bool]:
    """What ``devices.query()`` has to be restricted to."""
    return sa.and_(sa.true(), *(_condition(term, now_ms) for term in terms))


def _condition(term: Term, now_ms: int) -> sa.ColumnElement[bool]:
    if term.key == "seen":
        border = now_ms - term.span_ms
        seen = devices.c.last_seen_ms
        return seen > border if term.operator == "<" else seen < border
    found = _tagged(term) if term.key == "tag" else _any(_column(term), term.values)
    return found if term.operator == "=" else sa.not_(found)


def _tagged(term: Term) -> sa.ColumnElement[bool]:
    tags = sa.select(device_tags.c.device).where(_any(device_tags.c.tag, term.values))
    return devices.c.device.in_(tags)


def _column(term: Term) -> sa.ColumnElement[Any]:
    if term.is_slice:
        return sa.func.coalesce(devices.c.slices[term.key].as_string(), "")
    match term.key:
        case "name":
            return devices.c.device
        case "site":
            return sa.func.coalesce(device_facts.c.site, "")
        case "target":
            return sa.func.coalesce(devices.c.target, "")
        case "state":
            return sa.func.coalesce(devices.c.update_state, "")
        case "release":
            return sa.func.coalesce(_release(), "")
    flag = {"online": devices.c.online, "retired": device_facts.c.retired}[term.key]
    return sa.case((flag.is_(sa.true()), "true"), else_="false")


def _release() -> sa.ColumnElement[str]:
    """``model@version`` of what a device runs."""
    return (
        sa.select(releases.c.model + "@" + releases.c.version)
        .where(releases.c.digest == devices.c.active)
        .scalar_subquery()
    )


def _any(column: sa.ColumnElement[Any], values: tuple[str, ...]) -> sa.ColumnElement[bool]:
    exact = [value for value in values if "*" not in value]
    patterns = [value for value in values if "*" in value]
    return sa.or_(column.in_(exact), *(Matches(column, pattern) for pattern in patterns))


class Matches(sa.sql.functions.GenericFunction[bool]):
    """Whether a text matches a pattern in which ``*`` stands for any letters, case and all.

    ``LIKE`` ignores case in SQLite and not in PostgreSQL, so each has a word of its own.
    """

    inherit_cache = True
    name = "matches"
    type = sa.Boolean()


@compiles(Matches, "sqlite")
def _glob(element: Matches, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern = element.clauses
    escaped = re.sub(r"([?\[])", r"[\1]", pattern.value)
    text = sa.literal(escaped)
    return f"{compiler.process(column, **options)} GLOB {compiler.process(text, **options)}"


@compiles(Matches, "postgresql")
def _like(element: Matches, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern = element.clauses
    escaped = re.sub(r"([%_\\])", r"\\\1", pattern.value).replace("*", "%")
    text = sa.literal(escaped)
    return f"{compiler.process(column, **options)} LIKE {compiler.process(text, **options)}"
