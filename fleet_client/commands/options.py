"""Arguments and options that several commands have."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from edge_core.errors import InvalidConfiguration

Most = Annotated[int, typer.Option("--limit", min=1, help="So many at most.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the log.")]
Devices = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Names of devices.")]
Model = Annotated[
    str | None, typer.Option(help="Whose baseline; that of the release which a device runs.")
]


def seconds_of(text: str) -> float:
    """A span such as ``90s`` or ``2h`` in seconds."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    if found is None:
        raise InvalidConfiguration(f"{text!r} is no span of time: write 90s, 30m, 2h or 7d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def moment_of(text: str) -> int:
    """A time in ISO 8601 as milliseconds since 1970; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidConfiguration(f"{text!r} is no time: write it as 2026-11-01T12:00Z") from error
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
