"""When the end of something that people sign becomes a matter for them. Pure."""

from datetime import datetime, timedelta
from typing import Final, Literal

WARN: Final = timedelta(days=30)
PAGE: Final = timedelta(days=7)
"""A ceremony takes people from several places: a week is little."""

Kind = Literal["expiry", "lapsing"]
KINDS: Final[tuple[Kind, ...]] = ("expiry", "lapsing")
"""Of alerts: for the coming weeks; and for now, which opens an incident."""
FIXES: Final = {
    "root": "make the next one with serinus-convert root propose",
    "targets": "make the next one with serinus-convert delegation propose",
    "releases": "sign it again with serinus-convert renew",
}


def kind(expires: datetime, now: datetime) -> Kind | None:
    """Which alert an end raises; none while it is far."""
    left = expires - now
    if left > WARN:
        return None
    return "expiry" if left > PAGE else "lapsing"


def title(role: str, expires: datetime, now: datetime) -> str:
    """What an alert says, the same on every day before the end."""
    verb = "ends" if expires > now else "ended"
    then = "then devices take" if expires > now else "devices take"
    return (
        f"the release repository's {role} {verb} on {expires:%Y-%m-%d}; {then} no new release: "
        f"{FIXES[role]} (docs/key-ceremony.md)"
    )
