"""A model runtime that fails when a test wants it to."""

import numpy as np

from edge_agent.inference.session import Float32, Session
from edge_core.errors import Unavailable


class FailingSession:
    """The runtime of another session, until ``mode`` says otherwise."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runtime = session.runtime
        self.placement = session.placement
        self.absent = session.absent
        self.mode = "works"
        """``works``, ``refuses`` (its own error), ``nan`` or ``crashes`` (a foreign error)."""

    def run(self, features: Float32) -> Float32:
        """Answer, or fail as told."""
        match self.mode:
            case "refuses":
                raise Unavailable("the runtime has no memory left")
            case "crashes":
                raise RuntimeError("a defect of the runtime")
            case "nan":
                return np.full_like(self._session.run(features), np.nan)
        return self._session.run(features)
