"""A chain of links: what each tells, and whether that was verified. No I/O."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from converters.refusal import ChainBroken, ChainIncomplete

State = Literal["verified", "unknown", "broken"]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a link tells."""

    name: str
    value: str


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One link."""

    name: str
    facts: list[Fact] = []
    broken: list[str] = []
    """What does not fit, each in one line."""
    unknown: list[str] = []
    """What was not checked or cannot be known, and what would change that."""

    @property
    def state(self) -> State:
        """Broken before unknown before verified."""
        return "broken" if self.broken else "unknown" if self.unknown else "verified"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """All links, the data first."""

    release: str
    digest: str
    links: list[Link]

    @property
    def state(self) -> State:
        """As of its worst link."""
        states = {link.state for link in self.links}
        return "broken" if "broken" in states else "unknown" if "unknown" in states else "verified"

    def check(self) -> None:
        """Raise :class:`ChainBroken` or :class:`ChainIncomplete`, naming the links."""
        if self.state == "broken":
            raise ChainBroken(f"{self.release}: broken: {_told(self.links, 'broken')}")
        if self.state == "unknown":
            names = ", ".join(link.name for link in self.links if link.state == "unknown")
            raise ChainIncomplete(
                f"{self.release}: nothing is broken; not all is known of: {names}"
            )


def facts(pairs: Iterable[tuple[str, object]]) -> list[Fact]:
    """Facts in their order; those without a value are left out."""
    return [Fact(name=name, value=str(value)) for name, value in pairs if value is not None]


def short(digest: str) -> str:
    """As much of a digest as people compare."""
    return digest[:16]


def _told(links: Sequence[Link], state: State) -> str:
    return "; ".join(
        f"{link.name} ({', '.join(link.broken)})" for link in links if link.state == state
    )
