"""Requests with a key are carried out once, however often they are sent.

The key is stored before anything is done, and marked as done in the very transaction that does it.
Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest
from fleet_server.storage import idempotency
from fleet_server.storage.database import Database
from fleet_server.storage.idempotency import KeyedRequest

KEPT_MS = 24 * 3_600_000
RUNNING_MS = 60_000
"""A request that has said nothing for so long died with its server."""
MAX_KEY = 255


class StillRunning(Conflict):
    """The same request is being carried out at this moment."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered the first time."""

    status: int
    content_type: str
    body: bytes


class IdempotentRequests:
    """Use cases on keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin(self, identity: str, request: str) -> Answered | None:
        """Begin a request; the answer where it was carried out before.

        Raises:
            InvalidRequest: the key was used for another request.
            StillRunning: the first one has not ended yet.
            Conflict: it was carried out, and its answer was lost with the server that gave it.
        """
        now = self._clock()
        row = KeyedRequest(identity=identity, request=request, begun_ms=now)
        with self._database.write() as connection:
            idempotency.forget(connection, now - KEPT_MS)
            found = idempotency.begin(connection, row)
            if found is None:
                return None
            if found.request != request:
                raise InvalidRequest(
                    "this Idempotency-Key was used for another request: take a new one"
                )
            if found.status is not None:
                return Answered(
                    status=found.status, content_type=found.content_type, body=found.body
                )
            if found.begun_ms > now - RUNNING_MS:
                raise StillRunning("the same request is still being carried out: ask again")
            if found.done:
                raise Conflict(
                    "this request was carried out, and its answer is lost: look what is there"
                )
            idempotency.change(connection, identity, begun_ms=now)
            return None

    @contextmanager
    def marking(self, identity: str) -> Iterator[None]:
        """Let whatever is written meanwhile, in this request, mark the key as done."""
        with self._database.noting(partial(idempotency.change, identity=identity, done=True)):
            yield

    def end(self, identity: str, answer: Answered | None) -> None:
        """Keep the answer; without one, a request that did nothing is forgotten."""
        with self._database.write() as connection:
            if answer is None:
                idempotency.drop(connection, identity)
                return
            idempotency.change(
                connection,
                identity,
                status=answer.status,
                content_type=answer.content_type,
                body=answer.body,
            )


def digest(*parts: bytes) -> str:
    """One digest over several parts, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
