"""The one way from what applications hand in to the rows that a model answers."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.sampling import Sampled, Sampling
from edge_agent.serving.asking import Requests, WholeWindows, Work
from edge_core.features.definition import FeatureDefinition
from edge_core.features.request_evaluation import Observed

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """What has to be answered."""

    raw: Float32
    """Raw values for statistics, float32 [rows, samples, inputs]."""
    features: Float32 | None
    """float32 [rows, features]; none where they can be computed for a whole batch at once."""
    times: tuple[Int64, Int64] | None = None
    """First and last moment of each row, int64 [rows] microseconds."""
    sampled: Sampled | None = None
    late: int = 0
    """Samples that came too late for this."""
    incomplete: Bool | None = None
    """Rows that lack inputs which the model needs, bool [rows]; none where no row does."""

    def taken(self, places: Int64) -> "Rows":
        """Some of the rows; none of them is sampled."""
        features, times = self.features, self.times
        return Rows(
            self.raw[places],
            None if features is None else features[places],
            None if times is None else (times[0][places], times[1][places]),
        )


class Memory(Protocol):
    """Turns work into rows and remembers what later work needs, in the order in which it came.

    It belongs to the inference thread, and outlives releases that share its definition.
    """

    changes: int
    """How often it changed; any thread may look."""
    clock_held: int
    """How often the clock was behind what was seen already, so that time stood still."""
    tolerates: bool
    """Whether it takes work that lacks inputs which the definition refuses, and marks its rows."""

    @property
    def counts(self) -> dict[str, int]:
        """What it refused or dropped since the process began, by name, for a person."""
        ...

    @property
    def definition(self) -> FeatureDefinition:
        """What rows are made by."""
        ...

    @property
    def now_us(self) -> int | None:
        """Newest moment seen, before which time does not go back; none where it may."""
        ...

    def take(self, work: Work, came_us: int, sampling: Sampling) -> Rows | Observed:
        """Take work.

        Args:
            work: of the definition's kind.
            came_us: when it came, by this device's clock.
            sampling: says which row to keep the evidence of.

        Raises:
            InvalidInput: it does not fit the definition; nothing of it was taken.
        """
        ...

    def incomplete(self, rows: Rows) -> Rows:
        """Rows of one job that were refused for their values, with those marked that lack inputs.

        Raises:
            InvalidInput: nothing is missing, or it is not tolerated: the refusal stands.
        """
        ...

    def peek(self, work: WholeWindows | Requests, came_us: int) -> Rows:
        """The rows that :meth:`take` would make of work now; nothing is remembered of it.

        Raises:
            InvalidInput: as :meth:`take`.
        """
        ...

    def snapshot(self) -> Mapping[str, bytes]:
        """What has to be remembered over a restart, by name."""
        ...
