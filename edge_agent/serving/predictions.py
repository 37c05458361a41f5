"""Answers, and the memory of recent ones, in which late labels find their prediction."""

import threading
from collections import OrderedDict

import msgspec

from edge_core.messages.telemetry import Arm
from edge_core.release import ReleaseRef


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Times are microseconds of sensor time; 0 where the caller sent whole windows."""

    id: str
    model: str
    version: str
    digest: str
    target: str
    served_by: str
    """``model`` or ``fallback``."""
    label: str
    confidence: float
    scores: list[float]
    first_us: int = 0
    last_us: int = 0


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be remembered of an answer until its label comes."""

    release: ReleaseRef
    arm: Arm
    rollout: str | None
    slices: dict[str, str]
    predicted: str
    confidence_bin: int
    bins: int
    """Number of confidence bins of the release."""
    shadow: ReleaseRef | None = None
    shadow_predicted: str = ""
    shadow_confidence_bin: int = 0
    shadow_bins: int = 0


class Recent:
    """The latest predictions by id; the oldest is forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._given: OrderedDict[str, Given] = OrderedDict()
        # The inference thread remembers, the event loop takes.
        self._lock = threading.Lock()

    def remember(self, prediction_id: str, given: Given) -> None:
        """Keep one answer."""
        with self._lock:
            self._given[prediction_id] = given
            while len(self._given) > self._capacity:
                self._given.popitem(last=False)

    def add_shadow(
        self,
        prediction_id: str,
        *,
        release: ReleaseRef,
        predicted: str,
        confidence_bin: int,
        bins: int,
    ) -> None:
        """Note what the shadow answered to the same row, if its label has not come yet."""
        with self._lock:
            given = self._given.get(prediction_id)
            if given is not None:
                self._given[prediction_id] = msgspec.structs.replace(
                    given,
                    shadow=release,
                    shadow_predicted=predicted,
                    shadow_confidence_bin=confidence_bin,
                    shadow_bins=bins,
                )

    def take(self, prediction_id: str) -> Given | None:
        """The answer with this id, once: a second label for it finds nothing."""
        with self._lock:
            return self._given.pop(prediction_id, None)
