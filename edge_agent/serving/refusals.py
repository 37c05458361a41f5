"""How many requests were refused, and why."""

from collections import Counter
from collections.abc import Mapping

from edge_core.errors import SerinusError


class Refusals:
    """Counts by the name of the error's class; a count may be lost where threads meet, no more."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, error: SerinusError) -> None:
        """One more request was refused with this error."""
        self._counts[type(error).__name__] += 1

    @property
    def by_kind(self) -> Mapping[str, int]:
        """Refusals by the name of the error's class."""
        return dict(self._counts)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._counts.values())
