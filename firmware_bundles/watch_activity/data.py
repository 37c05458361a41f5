"""The watch data set: seven shoulder exercises, ten subjects, either wrist, 6 axes at 50 Hz.

It comes inside the PyPI package seglearn 1.2.5 (BSD-3-Clause); only the file is read.
Source: Burns et al., "Shoulder physiotherapy exercise recognition", Physiol. Meas. 39 (2018).
Subjects 1 to 5 build releases; 6 to 10 belong to the fleet, and no release ever sees them.
"""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.data.dataset import LabelledRecording, Role
from edge_core.errors import InvalidBundle, Unavailable

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
SIDES = ("left", "right")
TRAINING_SUBJECTS = (1, 2, 3, 4)
TEST_SUBJECTS = (5,)
LATER_SHARE = 0.25
"""The end of each recording calibrates (training subjects) or becomes golden (test subjects)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One exercise of one subject."""

    samples: npt.NDArray[np.float32]
    """float32 [n, 6]: ax ay az in g, wx wy wz in rad/s."""
    subject: int
    side: str
    activity: str


def load_recordings() -> list[Recording]:
    """Read all 140 recordings; the file's digest is checked before it is unpickled.

    Raises:
        Unavailable: seglearn is not installed.
        InvalidBundle: the file is not the one that the recipe was written for.
    """
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the data set is missing: pip install 'serinus[convert]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InvalidBundle(f"{path} is not the data set of seglearn 1.2.5; reinstall it")
    data: dict[str, Any] = np.load(path, allow_pickle=True).item()
    rows = zip(data["X"], data["subject"], data["side"], data["y"], strict=True)
    return [
        Recording(
            samples=np.asarray(samples, dtype=np.float32),
            subject=int(subject),
            side=SIDES[int(side)],
            activity=str(data["y_labels"][int(label)]),
        )
        for samples, subject, side, label in rows
    ]


def recordings(settings: Mapping[str, object]) -> Iterable[LabelledRecording]:
    """Offer each recording's beginning and end for the role of its subject."""
    sides = settings.get("sides", list(SIDES))
    assert isinstance(sides, list)
    for recording in load_recordings():
        if recording.side in sides:
            yield from _split(recording)


def _split(recording: Recording) -> Iterator[LabelledRecording]:
    roles: tuple[Role, Role]
    if recording.subject in TRAINING_SUBJECTS:
        roles = ("train", "calibration")
    elif recording.subject in TEST_SUBJECTS:
        roles = ("test", "golden")
    else:
        return
    end = round(len(recording.samples) * (1 - LATER_SHARE))
    parts = ((roles[0], "beginning", slice(0, end)), (roles[1], "end", slice(end, None)))
    for role, part, span in parts:
        yield LabelledRecording(
            samples=recording.samples[span],
            label=recording.activity,
            entity=f"subject {recording.subject} {recording.side} {recording.activity} {part}",
            role=role,
            slices={"side": recording.side},
        )
