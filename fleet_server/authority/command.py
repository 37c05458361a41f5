"""``serinus-server authority``: what a succession's steps say to who gives them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

from fleet_server.domain import succession as rules
from fleet_server.domain.succession import Phase, Step
from fleet_server.services.succession import AuthorityView, Standing, Succession
from fleet_server.services.tokens import SERVER

STEPS = {
    "show": "who is trusted, how many devices rest on it, and what the next step is",
    "prepare": "make a successor, which is trusted beside the authority",
    "switch": "let the successor sign; the authority before stays trusted",
    "retire": "trust the authority before no more, and delete its key",
}
FORCED = ("switch", "retire")
"""Steps that may leave devices behind."""
COLUMNS = ("state", "ends", "certificates", "fingerprint (sha256)")


def carry_out(succession: Succession, step: str, *, force: bool) -> str:
    """Take a step, or only look; says where the succession stands.

    Raises:
        SerinusError: why the step cannot be taken.
    """
    if step == "show":
        return page(succession.standing())
    (known,) = (one for one in get_args(Step) if one == step)
    return page(succession.step(known, SERVER, force=force))


def page(found: Standing) -> str:
    """A table of the authorities, and the next step."""
    rows = [COLUMNS, *map(_row, found.authorities)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *_devices(found), f"next: {NEXT[found.phase]}"])


NEXT: dict[Phase, str] = {
    "alone": "'serinus-server authority prepare', where another authority is to follow",
    "prepared": "'serinus-server authority switch', once every device has learnt of the successor",
    "switched": "'serinus-server authority retire', once no device rests on the one that retires",
}


def _row(one: AuthorityView) -> tuple[str, ...]:
    state = one.state if one.has_key else f"{one.state}, key is missing"
    end = datetime.fromtimestamp(one.not_after_ms / 1000, UTC)
    return state, f"{end:%Y-%m-%d}", str(one.signed), one.fingerprint


def _devices(found: Standing) -> Iterator[str]:
    """Who is not as far yet."""
    learnt = found.devices - len(found.unaware)
    if found.phase != "alone":
        yield f"{learnt} of {found.devices} devices have learnt of the successor"
    if found.unaware:
        yield f"not yet: {rules.named(found.unaware)}"
    if found.dependent:
        yield f"still rest on the one that retires: {rules.named(found.dependent)}"
