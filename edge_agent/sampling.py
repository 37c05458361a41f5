"""Which predictions are sampled for the server, and what their features were computed from."""

from typing import NamedTuple


class Evidence(NamedTuple):
    """What features of a request were computed from; those of a window need its samples alone."""

    request: bytes
    """The request, as :mod:`edge_core.features.logs` packs it."""
    memory: bytes
    """What it could see, from before it was asked."""


class Sampled(NamedTuple):
    """One row that was chosen."""

    row: int
    """Its place in the job or batch."""
    evidence: Evidence | None = None


class Sampling:
    """Chooses one row in so many, at most one of each job. Belongs to the inference thread."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._left = 1

    def pick(self, rows: int) -> int | None:
        """The place of the row to sample among the next ``rows``; none where it is not due."""
        if rows < self._left:
            self._left -= rows
            return None
        place = self._left - 1
        self._left = max(1, self._every - (rows - 1 - place))
        return place
