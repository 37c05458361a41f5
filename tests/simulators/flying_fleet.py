"""The flights of 2013 as a fleet would see them, day by day, with a model of January to May.

Features are those of the recipe, computed by the evaluator that devices use; the model is a
logistic regression on them. A day is a drift period, and airports and carriers are slices.
"""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from converters import definition_source, recipe, recipe_code
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.stats import histogram
from edge_core.stats.histogram import Layout
from fleet_server.domain.drifting.expectation import Period, Seen
from fleet_server.domain.drifting.measures import Channels, WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE

FOLDER = Path(__file__).parents[2] / "firmware_bundles" / "flight_delay"
DAY_US = 86_400_000_000
MIN_SLICE_ROWS = 60

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def day_of(year: int, month: int, day: int) -> int:
    """Days since 1970."""
    return (datetime.date(year, month, day) - datetime.date(1970, 1, 1)).days


class Flights:
    """Every flight, as channels of counts."""

    def __init__(self) -> None:
        definition = definition_source.load(FOLDER, "features.toml")
        assert isinstance(definition, RequestDefinition)
        chosen = recipe.load(FOLDER, None)
        made = recipe_code.log(FOLDER, chosen.entry)(chosen.settings)
        features = np.asarray(RequestEvaluator(definition).replay(*made.log), np.float32)
        self._days = np.asarray(made.log.request["at"], np.int64) // DAY_US
        known = np.array([role is not None for role in made.roles])
        late = np.array(made.labels) == "late"
        trained = (self._days < day_of(2013, 6, 1)) & known
        model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        clean = np.nan_to_num(features)
        model.fit(clean[trained], late[trained])
        scores = model.predict_proba(clean).astype(np.float32)
        predicted = scores[:, 1] > 0.5
        reference = histogram.build(
            inputs={},
            features={n: features[trained, i] for i, n in enumerate(definition.feature_names)},
            confidence=scores.max(axis=1)[trained],
            predicted=predicted[trained].astype(np.int64),
            classes=2,
        )
        self._layout = Layout(reference)
        self.channels = Channels(
            [
                WatchedChannel(
                    name=c.name,
                    kind=c.kind,
                    usual=tuple(c.counts),
                    ordered=c.name != "predicted",
                )
                for c in reference.channels
            ]
            + [WatchedChannel(name="wrong answers", kind="outcome", usual=(0, 0), ordered=False)]
        )
        columns = [features, scores.max(axis=1)[:, None], predicted[:, None].astype(np.float32)]
        self._bins = self._binned(np.concatenate(columns, axis=1))
        self._wrong = np.where(known, predicted != late, -1)
        self._slices = {
            f"{name}={value}": np.array(values) == value
            for name, values in made.slices.items()
            for value in sorted(set(values))
        }

    def _binned(self, values: Float32) -> Int64:
        """Place of each value among the flat counts: int64 [rows, channels]."""
        found = [
            start + bins.index(values[:, column])
            for column, (start, bins) in enumerate(
                zip(self._layout.starts, self._layout.bins, strict=True)
            )
        ]
        return np.stack(found, axis=1)

    def day(self, number: int) -> Period:
        """What was seen on one day, counted since 1970, in all rows and in each slice."""
        today = self._days == number
        seen = {EVERYONE: {"incumbent": self._seen(today)}}
        for name, member in self._slices.items():
            mine = today & member
            if int(mine.sum()) >= MIN_SLICE_ROWS:
                seen[name] = {"incumbent": self._seen(mine)}
        return seen

    def _seen(self, rows: npt.NDArray[np.bool_]) -> Seen:
        counts = np.bincount(self._bins[rows].ravel(), minlength=self._layout.total)
        wrong = self._wrong[rows]
        outcome = [int((wrong == 0).sum()), int((wrong == 1).sum())]
        return Seen(int(rows.sum()), np.concatenate([counts, outcome]).astype(np.int64))
