"""Stands where a model is not to be opened, since it ended the process again and again."""

import numpy as np

from edge_agent.inference.session import Float32


class AbsentModel:
    """No score is a number, so that every row is answered by the fallback and counted so."""

    def __init__(self, columns: int) -> None:
        """Answer with so many columns: those of the logits and of an embedding beside them."""
        self._columns = columns
        self.runtime = "none: the model is not opened, the fallback answers"
        self.placement: dict[str, int] = {}
        self.absent: list[str] = []

    def run(self, rows: Float32) -> Float32:
        """See :class:`edge_agent.inference.session.Session`."""
        return np.full((len(rows), self._columns), np.nan, np.float32)
