"""What a fleet server did with the release: its rollouts and their verdicts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec

from converters.fleet_http import FleetHttp, Refused
from converters.tracing.link import Fact, Link, short
from edge_core.errors import InvalidConfiguration, Unavailable
from edge_core.release import ReleaseRef

ROLLOUTS = "rollouts"
AT_ONCE = 20
"""Entries in one answer, which has a limit in bytes."""
MOST_PAGES = 100


class _Rollout(msgspec.Struct, frozen=True, kw_only=True):
    rollout: str
    release: str
    digest: str
    state: str
    created_ms: int
    created_by: str


class _Verdict(msgspec.Struct, frozen=True, kw_only=True):
    verdict: int
    stage_kind: str
    at_ms: int
    decision: str
    reason: str


class _RolloutPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[_Rollout]
    next: str | None = None


class _VerdictPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[_Verdict]
    next: str | None = None


P = TypeVar("P", _RolloutPage, _VerdictPage)


def link(ref: ReleaseRef, http: FleetHttp | None) -> Link:
    """Every rollout of the release and its verdicts, the newest first.

    Raises:
        InvalidConfiguration: the server refuses the token, or is none.
    """
    if http is None:
        return Link(name=ROLLOUTS, unknown=["not asked: give --server URL --token-file FILE"])
    try:
        named = [rollout for rollout in _rollouts(http) if rollout.release == ref.name]
        ours = [rollout for rollout in named if rollout.digest == ref.digest]
        told = [fact for rollout in ours for fact in _facts(http, rollout)]
    except (Unavailable, Refused) as error:
        return Link(name=ROLLOUTS, unknown=[str(error)])
    broken = [
        f"{other.rollout} rolled {ref.name} out with manifest {short(other.digest)}"
        for other in named
        if other.digest != ref.digest
    ]
    unknown = [] if ours else ["the server has no rollout of it"]
    return Link(name=ROLLOUTS, facts=told, broken=broken, unknown=unknown)


def _facts(http: FleetHttp, rollout: _Rollout) -> list[Fact]:
    begun = f"{rollout.state}, started {_moment(rollout.created_ms)} by {rollout.created_by}"
    found = [Fact(name=rollout.rollout, value=begun)]
    for verdict in _verdicts(http, rollout.rollout):
        name = f"{rollout.rollout} verdict {verdict.verdict}"
        said = f"{verdict.stage_kind}: {verdict.decision}, {_moment(verdict.at_ms)}"
        found.append(Fact(name=name, value=f"{said}: {verdict.reason}"))
    return found


def _rollouts(http: FleetHttp) -> Iterator[_Rollout]:
    for page in _pages(http, "rollouts", _RolloutPage):
        yield from page.items


def _verdicts(http: FleetHttp, rollout: str) -> Iterator[_Verdict]:
    for page in _pages(http, f"verdicts/{quote(rollout, safe='')}", _VerdictPage):
        yield from page.items


def _pages(http: FleetHttp, path: str, kind: type[P]) -> Iterator[P]:
    cursor = ""
    for _ in range(MOST_PAGES):
        answer = http.get(f"{path}?limit={AT_ONCE}{cursor}")
        try:
            page = msgspec.json.decode(answer, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidConfiguration(f"{http.url} is no Serinus server: {error}") from error
        yield page
        if page.next is None:
            return
        cursor = f"&cursor={quote(page.next, safe='')}"


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
