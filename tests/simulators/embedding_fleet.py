"""A fleet whose model gives an embedding: rows are drawn, projected and counted as devices do it.

The embedding is normal, its scores are a linear head on it. In production each device adds an
effect of its own, and the hour of the day moves everyone. A hidden shift lies in the directions
that the head does not read: no score of any row changes by it, nor does any feature.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_core import outputs
from edge_core.stats import histogram, projection
from edge_core.stats.histogram import Histogram, Layout
from fleet_server.domain.drifting.expectation import Seen
from fleet_server.domain.drifting.measures import WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FEATURES = 6
CLASSES = 5
TRAINING = 4000


@dataclass(frozen=True)
class Conditions:
    """Standard deviations are in those of one coordinate in training."""

    size: int = 64
    directions: int = 8
    """From which the embedding is seen; for 0, every coordinate is counted as a feature."""
    devices: int = 100
    rows: int = 20
    """Of one device in one hour."""
    device_effect: float = 0.3
    day: float = 0.2


class EmbeddingFleet:
    """One draw of a fleet."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.conditions = told = conditions
        self.rng = np.random.default_rng(seed)
        self._head = self.rng.normal(0, 2 / np.sqrt(told.size), (told.size, CLASSES))
        self._own = self.rng.normal(0, told.device_effect, (told.devices, told.size + FEATURES))
        self._phase = self.rng.uniform(0, 2 * np.pi, told.size + FEATURES)
        drawn = self.rng.normal(0, 1, (TRAINING, told.size + FEATURES))
        embedding, features = self._split(drawn)
        scores = self._scores(embedding)
        named = {f"f{place}": features[:, place] for place in range(FEATURES)}
        seen = (
            projection.draw("seen@1.0.0", told.size, told.directions) if told.directions else None
        )
        if seen is None:
            named |= {f"c[{place}]": embedding[:, place] for place in range(told.size)}
        self.reference = histogram.build(
            inputs={},
            features=named,
            confidence=scores.max(axis=1),
            predicted=scores.argmax(axis=1),
            classes=CLASSES,
            embedding=None if seen is None else embedding,
            projection=seen,
        )
        self._layout = Layout(self.reference)

    @property
    def channels(self) -> list[WatchedChannel]:
        """As the server takes them from the reference."""
        return [
            WatchedChannel(
                name=c.name, kind=c.kind, usual=tuple(c.counts), ordered=c.name != "predicted"
            )
            for c in self.reference.channels
        ]

    def hidden(self, length: float) -> Float64:
        """A shift of so many standard deviations that the head does not read, float64 [size]."""
        drawn = self.rng.normal(0, 1, self.conditions.size)
        read, _ = np.linalg.qr(self._head)
        unread = drawn - read @ (read.T @ drawn)
        found: Float64 = unread * length / np.linalg.norm(unread)
        return found

    def read(self, length: float) -> Float64:
        """A shift of so many standard deviations towards the first class, float64 [size]."""
        found: Float64 = self._head[:, 0] * length / np.linalg.norm(self._head[:, 0])
        return found

    def hour(self, number: int, shift: Float64 | float = 0.0) -> dict[str, dict[str, Seen]]:
        """What was seen in one hour, with every embedding shifted."""
        moved, features = self.rows(number, shift)
        scores, none = self._scores(moved), np.zeros((len(moved), 1, 0), np.float32)
        counts = Histogram(self._layout)
        if self.conditions.directions:
            counts.update(none, features, scores, moved)
        else:
            counts.update(none, np.concatenate((features, moved), axis=1), scores)
        return {EVERYONE: {"incumbent": Seen(len(moved), counts.counts)}}

    def rows(self, number: int, shift: Float64 | float = 0.0) -> tuple[Float32, Float32]:
        """Embeddings and features of all rows of one hour."""
        told = self.conditions
        usual = self._own + told.day * np.sin(2 * np.pi * (number % 24) / 24 + self._phase)
        spread = np.sqrt(1 - told.device_effect**2)
        shape = (told.devices, told.rows, told.size + FEATURES)
        drawn = self.rng.normal(0, spread, shape) + usual[:, None]
        embedding, features = self._split(drawn.reshape(-1, told.size + FEATURES))
        return (embedding + shift).astype(np.float32), features

    def _split(self, drawn: Float64) -> tuple[Float32, Float32]:
        wide = drawn.astype(np.float32)
        return wide[:, : self.conditions.size], wide[:, self.conditions.size :]

    def _scores(self, embedding: Float32) -> Float32:
        return outputs.probabilities((embedding @ self._head).astype(np.float32))
