"""How many requests were refused, and why."""

from collections import Counter
from collections.abc import Mapping

from edge_core.errors import SerinusError


class Refusals:
    """Counts by the name of the error's class; a count may be lost where threads meet, no more."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, error: SerinusError, interface: str = "socket") -> None:
        """One more request was refused with this error."""
        self._counts[interface, type(error).__name__] += 1

    @property
    def by_interface(self) -> Mapping[tuple[str, str], int]:
        """Refusals by interface and the name of the error's class."""
        return dict(self._counts)

    @property
    def by_kind(self) -> Mapping[str, int]:
        """Refusals by the name of the error's class."""
        found: Counter[str] = Counter()
        for (_, kind), count in self.by_interface.items():
            found[kind] += count
        return dict(found)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._counts.values())
