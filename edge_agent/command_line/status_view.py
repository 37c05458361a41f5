"""A running agent's status for a person: grouped, in plain words, with units.

The agent names what it tells by itself; what this page has no words for is shown as it is, so that
nothing is lost. Names say their unit: ``..._bytes``, ``..._seconds``, ``..._ms``, ``..._share``;
and ``..._at_ms`` for a moment.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

Value = str | int | float | bool | None
Status = Mapping[str, Value]

NOTHING_SERVES = 3
"""Exit code of ``status`` where no release answers."""
UPDATE_WORDS = {
    "idle": "nothing to do",
    "downloading": "downloading a release",
    "verifying": "checking signatures and bytes",
    "self_testing": "replaying golden rows",
    "shadowing": "a new release answers unseen",
    "activating": "switching to a new release",
    "probation": "watching the new release",
    "committed": "up to date",
    "recovering": "going back to the release before",
    "failed": "the last update failed",
}
MEMORY_WORDS = {
    "empty": "began empty",
    "restored": "went on with what was stored",
    "went on": "went on from the release before",
}


class Line(NamedTuple):
    """One line of the page."""

    name: str
    text: str
    mood: str = ""
    """``good``, ``bad`` or nothing: what a colour may show."""


class _Known(NamedTuple):
    """Words for one entry."""

    key: str
    name: str
    show: Callable[[Value], tuple[str, str]]


def _plain(value: Value) -> tuple[str, str]:
    return ("-" if value in (None, "") else str(value)), ""


def _release(value: Value) -> tuple[str, str]:
    return (str(value), "good") if value else ("none: no release was rolled out here yet", "bad")


def _update(value: Value) -> tuple[str, str]:
    words = UPDATE_WORDS.get(str(value), "")
    mood = {"committed": "good", "failed": "bad"}.get(str(value), "")
    return f"{value}, {words}" if words else str(value), mood


def _connected(value: Value) -> tuple[str, str]:
    if value:
        return "yes", "good"
    return "no; serving goes on, messages wait on the disk", "bad"


def _memory(value: Value) -> tuple[str, str]:
    return MEMORY_WORDS.get(str(value), str(value or "-")), ""


def _trouble(value: Value) -> tuple[str, str]:
    """A count that should be none."""
    return (f"{value:,}", "bad") if value and not isinstance(value, str) else ("0", "")


def _nobody(value: Value) -> tuple[str, str]:
    """A list that should be empty."""
    return (str(value), "bad") if value else ("none", "")


def _answers(value: Value) -> tuple[str, str]:
    text = str(value or "-")
    return text, "bad" if "fallback" in text else ""


def _moment(value: Value) -> tuple[str, str]:
    if not isinstance(value, int):
        return "-", ""
    return moment(value), ""


def _count(value: Value) -> tuple[str, str]:
    return (f"{value:,}" if isinstance(value, int) else str(value)), ""


def _bytes(value: Value) -> tuple[str, str]:
    if not isinstance(value, int | float):
        return "unknown", "bad"
    return sized(value), ""


GROUPS: dict[str, tuple[_Known, ...]] = {
    "Device": (
        _Known("device", "name", _plain),
        _Known("target", "target", _plain),
        _Known("runtime", "runtime", _plain),
    ),
    "Serving": (
        _Known("active", "release", _release),
        _Known("digest", "digest", _plain),
        _Known("features", "answers", _plain),
        _Known("answers", "answered by", _answers),
        _Known("fallback_reason", "because", _plain),
        _Known("fallback_until_ms", "until", _moment),
        _Known("rows", "rows answered", _count),
        _Known("cached", "from the cache", _count),
        _Known("errors", "errors", _trouble),
        _Known("refused_requests", "refused requests", _trouble),
        _Known("fallback_missing", "inputs missing", _trouble),
        _Known("fallback_error", "model failed", _trouble),
        _Known("fallback_breaker", "model left alone", _trouble),
        _Known("fallback_command", "by command", _trouble),
        _Known("shadow", "in the shadow", _plain),
        _Known("shadow_dropped", "not shadowed", _count),
        _Known("placement", "operators", _plain),
        _Known("fell_back_operators", "elsewhere", _trouble),
        _Known("absent_providers", "not there", _plain),
        _Known("undeclared_consumers", "undeclared users", _nobody),
    ),
    "Update": (
        _Known("update", "state", _update),
        _Known("reason", "reason", _plain),
    ),
    "Fleet": (
        _Known("connected", "connected", _connected),
        _Known("unsent_bytes", "unsent", _bytes),
        _Known("dropped_messages", "dropped messages", _trouble),
        _Known("refused_messages", "refused messages", _trouble),
        _Known("samples_too_big", "samples too big", _trouble),
        _Known("troubles", "troubles", _nobody),
    ),
    "Memory of features": (
        _Known("memory", "began", _memory),
        _Known("memory_stored", "all on the disk", lambda value: ("yes" if value else "no", "")),
        _Known("memory_refused", "refused", _trouble),
        _Known("clock_held", "clock held", _trouble),
    ),
}
OTHER = "Also"


def serves(status: Status) -> bool:
    """Whether any release answers."""
    return bool(status.get("active"))


def grouped(status: Status, now_ms: int) -> dict[str, list[Line]]:
    """Lines by heading; a heading without lines is left out."""
    found = {
        heading: [
            Line(known.name, *known.show(status[known.key]))
            for known in lines
            if known.key in status
        ]
        for heading, lines in GROUPS.items()
    }
    known = {line.key for lines in GROUPS.values() for line in lines}
    found[OTHER] = [
        Line(name.replace("_", " "), by_name(name, value, now_ms))
        for name, value in status.items()
        if name not in known
    ]
    return {heading: lines for heading, lines in found.items() if lines}


def by_name(name: str, value: Value, now_ms: int) -> str:
    """A value with the unit that its name says."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, str):
        return value or "-"
    if name.endswith("_at_ms"):
        return f"{lasting((now_ms - value) / 1000)} ago" if value else "never"
    if name.endswith("_bytes"):
        return sized(value)
    if name.endswith("_seconds"):
        return lasting(value)
    if name.endswith("_share"):
        return f"{100 * value:g} %"
    if name.endswith(("_ms", "_us")):
        return f"{value:,g} {name[-2:]}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def sized(value: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def moment(at_ms: int) -> str:
    """A moment in UTC; its milliseconds where no calendar has it."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms:,} ms"


def lasting(seconds: float) -> str:
    """A time span in its two largest units."""
    for span, unit, below, small in (
        (86400, "days", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= span:
            whole, rest = divmod(int(seconds), span)
            rest //= below
            unit = "day" if unit == "days" and whole == 1 else unit
            return f"{whole} {unit} {rest} {small}" if rest else f"{whole} {unit}"
    return f"{seconds:g} s"


COLOURS = {"good": "\x1b[32m", "bad": "\x1b[31m", "heading": "\x1b[1m"}
NO_COLOUR = "\x1b[0m"


def page(status: Status, now_ms: int, *, colours: bool) -> str:
    """The whole page."""

    def coloured(text: str, mood: str) -> str:
        return f"{COLOURS[mood]}{text}{NO_COLOUR}" if colours and mood else text

    groups = grouped(status, now_ms)
    width = max((len(line.name) for lines in groups.values() for line in lines), default=0)
    parts = []
    for heading, lines in groups.items():
        parts.append(coloured(heading, "heading"))
        parts += [
            f"  {line.name:<{width}}  {coloured(printable(line.text), line.mood)}" for line in lines
        ]
    return "\n".join(parts)


def printable(text: str) -> str:
    """Without the control characters that a foreign text may hold: they would move the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
