"""Bodies that the API takes, and how answers are written."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

MAX_BODY_BYTES = 64 * 1024
LARGER_BODIES = {"/api/v1/labels": 4 * 1024 * 1024}
"""Paths that take many things at once."""


class StartRollout(BaseModel):
    """Body of POST /rollouts."""

    model_config = ConfigDict(extra="forbid")

    release: str = Field(max_length=100, examples=["watch-activity@1.1.0"])
    plan: dict[str, Any] | None = None
    """Settings that differ from the default plan."""
    supersede: bool = False
    """Take over from a rollout of the same model that has not ended."""


class OneCommand(BaseModel):
    """Body of POST /devices/{device}/commands."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(max_length=64, examples=["fallback_on", "fallback_off"])
    model: str | None = Field(default=None, max_length=64)
    """Whose baseline answers; left out: that of the release which the device runs."""
    reason: str = Field(default="", max_length=500)
    for_seconds: float | None = None
    """When a fallback ends by itself; left out: when it is ordered."""


class SeveralCommands(OneCommand):
    """Body of POST /commands."""

    devices: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=1000)


class Reason(BaseModel):
    """Body of pause, resume and rollback; may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500)


class Answer(Response):
    """A value of the services as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode structs, lists and plain values."""
        return msgspec.json.encode(content)


def items(values: Sequence[Any]) -> Answer:
    """Answer with a list."""
    return Answer({"items": values})
