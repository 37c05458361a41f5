"""How right a release may be on rows that no label came for: estimated, never decided by."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.domain import estimation
from fleet_server.domain.estimation import Estimate
from fleet_server.services.catalog import Release
from fleet_server.storage import predictions, rollups
from fleet_server.storage.rollups import DAY_MS, RollupCounts

CALIBRATED_DAYS = 90
"""What confidence meant is learned from labels of so many days."""
MOST_TOLD = 20_000
"""Labels that were told to the server, the newest."""
MOST_DAYS = 20_000
UNLIKE = ("fallback",)
"""Arms whose answers another model gave."""

Int64 = npt.NDArray[np.int64]


class Calibration(NamedTuple):
    """Labelled rows by bin of the answer's confidence, int64 [bins]."""

    right: Int64
    wrong: Int64


def calibration(
    connection: sa.Connection, release: Release, slice_: str | None, now_ms: int
) -> Calibration:
    """What a release's confidence meant, by labels that came on devices and at the server."""
    right = np.zeros(release.layout.confidence_size, np.int64)
    wrong = right.copy()
    found = rollups.between(
        connection,
        by_hour=False,
        digests=[release.ref.digest],
        from_ms=now_ms - CALIBRATED_DAYS * DAY_MS,
        to_ms=now_ms + 1,
        limit=MOST_DAYS,
    )
    for key, counts in found:
        if key.arm in UNLIKE or not rollups.covers(key, slice_):
            continue
        if len(counts.right_bins) == len(right):
            right += counts.right_bins
        if len(counts.wrong_bins) == len(wrong):
            wrong += counts.wrong_bins
    told = predictions.labelled_confidences(connection, release.ref.digest, slice_, MOST_TOLD)
    if told:
        confidence = np.array([each.confidence for each in told], np.float32)
        bins = release.layout.confidence_bins(confidence)
        correct = np.array([each.right for each in told])
        right += np.bincount(bins[correct], minlength=len(right))
        wrong += np.bincount(bins[~correct], minlength=len(wrong))
    return Calibration(right, wrong)


def accuracy(
    release: Release, counts: RollupCounts, known: Calibration, rows_per_observation: float
) -> Estimate | None:
    """What share of an hour's or day's rows may be right; none where too little is known."""
    if len(counts.counts) != release.layout.total:
        return None
    seen = counts.counts[release.layout.slice_of("confidence")]
    return estimation.estimate(
        seen.tolist(), known.right.tolist(), known.wrong.tolist(), rows_per_observation
    )
