"""Times, spans and stored details as the page says them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import json

MOST_NAMED = 8
"""Of a list; how many more there are is said."""
LONGEST = 400
"""Letters of one detail; the API tells the whole."""
NOTHING = 1e-9
"""What is smaller is what rounding left of 0."""
SPANS = ((86400, "d"), (3600, "h"), (60, "min"))
MOMENT = "_ms"
"""How names of moments end, in milliseconds UTC."""


def clock(milliseconds: int | None) -> str:
    """A moment, UTC."""
    return _moment(milliseconds, "%Y-%m-%d %H:%M:%S")


def day(milliseconds: int | None) -> str:
    """The date of a moment, UTC."""
    return _moment(milliseconds, "%Y-%m-%d")


def time_of_day(milliseconds: int | None) -> str:
    """A moment without its date, UTC."""
    return _moment(milliseconds, "%H:%M:%S")


def _moment(milliseconds: int | None, form: str) -> str:
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime(form)
    except (ValueError, OverflowError):  # a device's clock that no calendar reaches
        return f"{milliseconds} ms"


def ago(milliseconds: int | None, now_ms: int) -> str:
    """How long ago a moment was."""
    if milliseconds is None:
        return ""
    seconds = max(0, now_ms - milliseconds) // 1000
    for size, unit in SPANS:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def span(seconds: float | None, digits: int = 3) -> str:
    """A length of time, to so many digits."""
    if seconds is None:
        return "-"
    size, unit = next(((s, unit) for s, unit in SPANS if seconds >= s), (1, "s"))
    value = seconds / size
    text = f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
    return f"{text} {unit}"


def words(value: object) -> str:
    """A name from the program as words."""
    return str(value or "").replace("_", " ")


def fact(value: object, name: str = "") -> str:
    """A stored detail in one line; ``name`` tells whether it is a moment."""
    if isinstance(value, int) and name.endswith(MOMENT):
        return f"{clock(value)} UTC"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return "0" if abs(value) < NOTHING else f"{value:.4g}"
    if isinstance(value, Mapping):
        return _short(", ".join(f"{key}: {fact(each, str(key))}" for key, each in value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        more = f", and {len(value) - MOST_NAMED} more" if len(value) > MOST_NAMED else ""
        return _short(", ".join(fact(each) for each in value[:MOST_NAMED]) + more)
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def facts_of(text: str) -> dict[str, object]:
    """What a decision's detail says, by name."""
    found = json.decode(text)
    return found if isinstance(found, dict) else {"": found}
