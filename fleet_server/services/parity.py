"""Replays sampled predictions: the features that a device computed, computed again here."""

import numpy as np
import sqlalchemy as sa

from edge_core.errors import InvalidInput
from edge_core.features import evaluation
from edge_core.features.definition import of_windows
from edge_core.messages.telemetry import Sample
from fleet_server.services.catalog import Release
from fleet_server.storage import devices, journal

KEPT_SAMPLES = 1000
"""Of each device; a broker sends again what it had under way, some hundreds of all devices."""


def compare(sample: Sample, release: Release) -> str | None:
    """Say which features differ in any bit; none where they agree. Lengths are checked before."""
    definition = of_windows(release.definition)
    shape = (1, *definition.raw_shape)
    window = np.frombuffer(sample.window, dtype="<f4").reshape(shape)
    try:
        ours = evaluation.evaluate(definition, evaluation.quantise(definition, window))[0]
    except InvalidInput as error:
        return f"its inputs are refused here: {error}"
    if ours.astype("<f4").tobytes() == sample.features:
        return None
    theirs = np.frombuffer(sample.features, dtype="<f4")
    names = [
        name
        for name, a, b in zip(definition.feature_names, ours, theirs, strict=True)
        if a.tobytes() != b.tobytes()
    ]
    return "features differ: " + ", ".join(names[:8])


def record(connection: sa.Connection, sample: Sample, release: Release, now_ms: int) -> None:
    """Compare one sample and keep the counts; a difference opens an alert.

    One that comes again, because its acknowledgement was lost, is left out.
    """
    digest = release.ref.digest
    place = (sample.device, sample.prediction_id, digest)
    if not devices.new_sample(connection, *place, keep=KEPT_SAMPLES):
        return
    difference = compare(sample, release)
    devices.add_parity(connection, sample.device, digest, difference is not None, difference or "")
    if difference is None:
        return
    subject = f"{sample.device}/{release.ref.name}"
    title = f"{sample.device} computes other features than its bundle's definition gives"
    detail = {"device": sample.device, "release": release.ref.name, "difference": difference}
    if journal.open_alert(connection, now_ms, "parity", subject, title, detail):
        journal.add_event(connection, now_ms, "parity", sample.device, title, detail)
