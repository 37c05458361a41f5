"""What waits for the inference thread: work, and the release that has to answer it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from edge_agent.monitor import Role
from edge_agent.serving.answer_cache import AnswerCache
from edge_agent.serving.asking import Explain, Remember, Work
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.memory import Memory
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import SerinusError
from edge_core.features.request_evaluation import Observed


class Remembered(NamedTuple):
    """What the features remember."""

    definition: str
    """Sha256 of the feature definition."""
    parts: Mapping[str, bytes]


Answer: TypeAlias = list[Prediction] | Explanation | Observed | Remembered | SerinusError
Done = Callable[[Answer], None]


class Totals(msgspec.Struct, kw_only=True):
    """What the active release did since it was activated."""

    rows: int = 0
    errors: int = 0
    fallbacks: int = 0
    cached: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may add to its rows."""

    model: str = ""
    """Name of the model; empty where only one is served."""
    deadline: float | None = None
    """``time.perf_counter()`` until which an answer is worth having; that clock is Linux's
    CLOCK_MONOTONIC, so that processes of one machine share it."""
    consumer: str = ""
    """Who asks, for the statistics."""


PLAIN = Terms()


class Active:
    """The release that answers, its role, its totals and what its features remember.

    The memory and the cache belong to the inference thread.
    """

    def __init__(
        self,
        release: LoadedRelease,
        role: Role,
        slices: dict[str, str],
        memory: Memory,
        *,
        totals: Totals,
        cache_rows: int = 0,
    ) -> None:
        self.release = release
        self.role = role
        self.slices = slices
        """The device's slices that the release declares."""
        self.memory = memory
        self.totals = totals
        self.shadow: LoadedRelease | None = None
        """Scores the same rows unseen; none once another release answers."""
        self.cache = AnswerCache(cache_rows) if cache_rows else None


class Job(msgspec.Struct, eq=False):
    """One admitted piece of work."""

    active: Active
    work: Work | Explain | Remember
    rows: int
    """Rows that it can make at most, or what taking it costs in rows."""
    slices: dict[str, str]
    done: Done
    """Called on the inference thread."""
    came_us: int
    """When it came, UTC microseconds."""
    started: float
    """When it came, ``time.perf_counter()``."""
    deadline: float | None
    """By the same clock; none for ever."""
    consumer: str
    """Who asked."""
