"""Stored verdicts: shown, and judged again from what they were judged from."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.domain.evidence import Evidence
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.verdict import Verdict, judge
from fleet_server.services.errors import NotFound
from fleet_server.services.rollout_views import VerdictView, verdict_view
from fleet_server.storage import rollouts
from fleet_server.storage.database import Database
from fleet_server.storage.rollouts import StoredRollout

EVERY_MS = 10_000
EVERY_SHARE = 20
"""A waiting stage stores a verdict whenever it has become longer by 1 over this."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that :func:`judge` was given."""

    stage: Stage
    plan: Plan
    evidence: Evidence


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A stored verdict beside the one that its inputs give now."""

    verdict: int
    same: bool
    stored: dict[str, Any]
    replayed: dict[str, Any]


class Verdicts:
    """Read-only questions on verdicts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_rollout(
        self, rollout: str, limit: int = 200, before: int | None = None
    ) -> list[VerdictView]:
        """Stored verdicts of a rollout, newest first; raise :class:`NotFound`."""
        with self._database.read() as connection:
            row = rollouts.one(connection, rollout)
            if row is None:
                raise NotFound(f"no rollout {rollout[:64]!r}; see: serinus rollout list")
            stored = rollouts.verdicts_of(connection, rollout, limit, before)
            return [verdict_view(found, row) for found in stored]

    def replay(self, verdict: int) -> Replay:
        """Judge a verdict's inputs again; raise :class:`NotFound` where there is none."""
        with self._database.read() as connection:
            found = rollouts.inputs(connection, verdict)
        if found is None:
            raise NotFound(f"no verdict {verdict}; see: serinus verdict list")
        inputs = msgspec.json.decode(found.inputs, type=Inputs)
        again = msgspec.json.encode(judge(inputs.stage, inputs.plan, inputs.evidence))
        return Replay(
            verdict=verdict,
            same=again == found.result,
            stored=msgspec.json.decode(found.result),
            replayed=msgspec.json.decode(again),
        )


def store(
    connection: sa.Connection,
    row: StoredRollout,
    inputs: Inputs,
    verdict: Verdict,
    now_ms: int,
    *,
    moves: bool,
) -> int | None:
    """Store a verdict with its inputs; returns its number, none where it was not stored.

    One that moves nothing is stored ever more rarely while its stage lasts: the next one contains
    all that it looked at, and a stage may wait for weeks.
    """
    last_ms = rollouts.last_verdict_ms(connection, row.rollout, row.stage)
    pause_ms = max(EVERY_MS, (now_ms - row.stage_started_ms) // EVERY_SHARE)
    if not moves and last_ms is not None and now_ms - last_ms < pause_ms:
        return None
    return rollouts.add_verdict(
        connection,
        row.rollout,
        row.stage,
        now_ms,
        verdict.decision,
        verdict.reason,
        msgspec.json.encode(inputs),
        msgspec.json.encode(verdict),
    )
