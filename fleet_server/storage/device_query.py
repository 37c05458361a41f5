"""A query over devices as SQL: the same devices that :func:`query.holds` finds."""

import re
from typing import Any

import sqlalchemy as sa

from fleet_server.domain.query import Term
from fleet_server.storage.tables import device_facts, device_tags, devices, releases


def condition(terms: tuple[Term, ...], now_ms: int, dialect: str) -> sa.ColumnElement[bool]:
    """What ``devices.query()`` has to be restricted to, in the words of a dialect."""
    return sa.and_(sa.true(), *(_condition(term, now_ms, dialect) for term in terms))


def _condition(term: Term, now_ms: int, dialect: str) -> sa.ColumnElement[bool]:
    if term.key == "seen":
        border = now_ms - term.span_ms
        seen = devices.c.last_seen_ms
        return seen > border if term.operator == "<" else seen < border
    found = (
        _tagged(term, dialect) if term.key == "tag" else _any(_column(term), term.values, dialect)
    )
    return found if term.operator == "=" else sa.not_(found)


def _tagged(term: Term, dialect: str) -> sa.ColumnElement[bool]:
    tags = sa.select(device_tags.c.device).where(_any(device_tags.c.tag, term.values, dialect))
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


def _any(
    column: sa.ColumnElement[Any], values: tuple[str, ...], dialect: str
) -> sa.ColumnElement[bool]:
    exact = [value for value in values if "*" not in value]
    patterns = [value for value in values if "*" in value]
    return sa.or_(column.in_(exact), *(_matches(column, each, dialect) for each in patterns))


def _matches(column: sa.ColumnElement[Any], pattern: str, dialect: str) -> sa.ColumnElement[bool]:
    """``*`` stands for any letters, case and all; ``LIKE`` would ignore case in SQLite."""
    if dialect == "postgresql":
        escaped = re.sub(r"([%_\\])", r"\\\1", pattern)
        return column.like(escaped.replace("*", "%"), escape="\\")
    return column.op("GLOB", is_comparison=True)(re.sub(r"([?\[])", r"[\1]", pattern))
