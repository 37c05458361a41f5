"""Which part of a list a request asks for, and where the next part begins.

A cursor says after which entry to go on, by the key that the list is sorted by: entries that come
and go between two requests are neither shown twice nor left out. It is opaque to who asks.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Path, Query, Request, Response

from fleet_server.api.schemas import Answer
from fleet_server.services.errors import InvalidRequest

K = TypeVar("K")

Place = str | int | tuple[str | int, ...]
"""What a list is sorted by, of one entry."""

MOST = 1000

Limit = Annotated[int, Query(ge=1, le=MOST)]
LARGEST = 2**63 - 1
"""That a database takes."""

After = Annotated[int, Query(ge=0, le=LARGEST)]
Number = Annotated[int, Path(ge=0, le=LARGEST)]
Cursor = Annotated[str | None, Query(max_length=512, description="From 'next' of the last part.")]


def encoded(key: Place) -> str:
    """A key as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def place_of(cursor: str | None, kind: type[K]) -> K | None:
    """What a cursor holds: a number, a text, or several; raise :class:`InvalidRequest`."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=kind)
        if not all(_storable(part) for part in (found if isinstance(found, tuple) else (found,))):
            raise ValueError(found)
        return found
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest("this cursor is not one that the server gave") from error


def page(
    request: Request, found: Sequence[Any], limit: int, key: Callable[[Any], Place]
) -> Response:
    """One part of a list.

    Args:
        request: whose URL the link to the next part goes back to.
        found: one more than ``limit``, where there are more.
        limit: how many are shown.
        key: what the list is sorted by.
    """
    shown = found[:limit]
    after = encoded(key(shown[-1])) if len(found) > limit and shown else None
    answer = Answer({"items": shown, "next": after})
    if after is not None:
        url = request.url.include_query_params(cursor=after)
        answer.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    return answer


def _storable(value: object) -> bool:
    """Whether a database can compare with it."""
    return abs(value) <= LARGEST if isinstance(value, int) else "\0" not in str(value)
