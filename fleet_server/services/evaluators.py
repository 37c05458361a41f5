"""Compiled feature definitions: compiling takes longer than computing one sample."""

from collections import OrderedDict
from threading import Lock

from edge_core.features.definition import FeatureDefinition
from edge_core.features.evaluation import Evaluator
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.window_definition import WindowDefinition

MOST = 32
"""Definitions that are kept compiled; the one used least recently goes first."""

Compiled = Evaluator | RequestEvaluator


class Evaluators:
    """Keeps evaluators by the digest of their definition."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Compiled] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, digest: str, definition: FeatureDefinition) -> Compiled:
        """The evaluator of a definition; raise ``InvalidBundle`` where it cannot be compiled."""
        with self._lock:
            found = self._kept.pop(digest, None)
            if found is None:
                found = _compiled(definition)
            self._kept[digest] = found
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return found


def _compiled(definition: FeatureDefinition) -> Compiled:
    if isinstance(definition, WindowDefinition):
        return Evaluator(definition)
    return RequestEvaluator(definition)
