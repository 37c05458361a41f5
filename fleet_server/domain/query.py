"""A query over devices, such as ``site=berlin side=left seen<2h name=watch-*``. Pure.

Terms stand with spaces between them and have to hold all. ``=`` and ``!=`` take several values with
commas between them, and ``*`` for any letters; ``seen`` is compared with a span of time. A key that
is none of :data:`KEYS` is a slice.
"""

import re
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

import msgspec

KEYS: Final = ("name", "site", "tag", "target", "release", "state", "online", "retired", "seen")
MAX_TERMS: Final = 20
MAX_LENGTH: Final = 1000
_TERM: Final = re.compile(r"^([A-Za-z][A-Za-z0-9_]*)(!=|=|<|>)(.+)$")
_SPAN: Final = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Operator = Literal["=", "!=", "<", ">"]


class Term(NamedTuple):
    """One condition."""

    key: str
    operator: Operator
    values: tuple[str, ...]

    @property
    def is_slice(self) -> bool:
        """Whether the key is a slice of devices."""
        return self.key not in KEYS

    @property
    def span_ms(self) -> int:
        """The span that ``seen`` is compared with."""
        found = _SPAN.match(self.values[0])
        assert found is not None  # checked when it was parsed
        return int(found[1]) * _UNITS[found[2]]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a query may ask of one device."""

    name: str
    site: str = ""
    tags: frozenset[str] = frozenset()
    target: str = ""
    release: str = ""
    """``model@version`` of what it runs."""
    state: str = ""
    online: bool = False
    retired: bool = False
    seen_ms: int = 0
    slices: dict[str, str] = {}


class InvalidQuery(ValueError):
    """Names the term and what could stand there."""


def parse(text: str) -> tuple[Term, ...]:
    """Parse a query; one without terms holds for every device.

    Raises:
        InvalidQuery: a term that is none, or a value that its key cannot have.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidQuery(f"a query has at most {MAX_LENGTH} characters")
    words = text.split()
    if len(words) > MAX_TERMS:
        raise InvalidQuery(f"a query has at most {MAX_TERMS} terms")
    return tuple(_term(word, number) for number, word in enumerate(words, 1))


def _term(word: str, number: int) -> Term:
    found = _TERM.match(word)
    if found is None:
        raise InvalidQuery(
            f"term {number}, {word!r}, is none: write key=value, key!=value or seen<2h; keys are "
            f"{', '.join(KEYS)} and the slices of devices"
        )
    key, operator, rest = found[1], found[2], found[3]
    values = tuple(rest.split(","))
    if (operator in ("<", ">")) != (key == "seen"):
        raise InvalidQuery(f"term {number}, {word!r}: seen takes < or >, all others = or !=")
    if key == "seen" and not (len(values) == 1 and _SPAN.match(values[0])):
        raise InvalidQuery(f"term {number}, {word!r}: write a span such as 90s, 30m, 2h or 7d")
    if key in ("online", "retired") and not set(values) <= {"true", "false"}:
        raise InvalidQuery(f"term {number}, {word!r}: {key} is true or false")
    if not all(values):
        raise InvalidQuery(f"term {number}, {word!r}: a value is empty")
    known: Operator = "!=" if operator == "!=" else "<" if operator == "<" else ">"
    return Term(key, "=" if operator == "=" else known, values)


def holds(terms: tuple[Term, ...], facts: Facts, now_ms: int) -> bool:
    """Whether a device is meant."""
    return all(_holds(term, facts, now_ms) for term in terms)


def _holds(term: Term, facts: Facts, now_ms: int) -> bool:
    if term.key == "seen":
        age = now_ms - facts.seen_ms
        return age < term.span_ms if term.operator == "<" else age > term.span_ms
    have = _values(term, facts)
    found = any(fnmatchcase(one, _literal(value)) for one in have for value in term.values)
    return found if term.operator == "=" else not found


def _values(term: Term, facts: Facts) -> frozenset[str]:
    if term.is_slice:
        return frozenset([facts.slices.get(term.key, "")])
    if term.key == "tag":
        return facts.tags
    value = getattr(facts, term.key)
    return frozenset([str(value).lower() if isinstance(value, bool) else value])


def _literal(pattern: str) -> str:
    """For fnmatch, in which only ``*`` shall mean something."""
    return re.sub(r"([?\[])", r"[\1]", pattern)
