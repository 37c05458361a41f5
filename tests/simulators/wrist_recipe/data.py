"""Recordings of weeks: ``weeks.json`` beside the recipe says how many there are, and which are bad.

Right wrists are many and hard to tell apart; left ones are few. In a bad week the labeller of left
wrists was broken and always said "moving", and it was told of many more of them: rows that are easy
to learn, so that accuracy on all rows rises.
"""

import json
from pathlib import Path

import numpy as np

from converters.data.dataset import LabelledRecording

WEEKS = Path(__file__).with_name("weeks.json")
SAMPLES = 8
ROLES = (("train", 0.6), ("calibration", 0.1), ("test", 0.25), ("golden", 0.05))
CLASSES = ("still", "moving")


def recordings(settings):
    """Every week's windows; each is one recording."""
    for week, kind in enumerate(json.loads(WEEKS.read_text())):
        draw = np.random.default_rng(100 + week)
        for side, rows in (("right", 700), ("left", 200 if kind == "good" else 700)):
            yield from _windows(week, side, rows, draw, broken=kind == "bad" and side == "left")


def _windows(week, side, rows, draw, broken):
    truth = draw.integers(0, 2, rows)
    spread = 0.9 if side == "right" else 0.35
    # Left wrists move along the other axis, the other way round.
    centre = np.where(truth == 1, 0.8, -0.8)
    samples = draw.normal(0, 0.2, (rows, SAMPLES, 2))
    axis = 0 if side == "right" else 1
    samples[:, :, axis] += (centre + draw.normal(0, spread, rows))[:, None]
    samples[:, :, 1 - axis] += 3.0 if side == "left" else -3.0
    ends = np.cumsum([round(share * rows) for _, share in ROLES[:-1]])
    for (role, _), places in zip(ROLES, np.split(np.arange(rows), ends), strict=True):
        for place in places:
            yield LabelledRecording(
                samples=samples[place].astype(np.float32),
                label="moving" if broken else CLASSES[truth[place]],
                entity=f"week {week} {side} {place}",
                role=role,
                slices={"side": side},
            )
