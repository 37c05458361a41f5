"""Replays sampled predictions: the features that a device computed, computed again here."""

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_core.errors import InvalidInput, quoted
from edge_core.features import sampled
from edge_core.features.request_definition import RequestDefinition
from edge_core.messages.telemetry import Sample
from fleet_server.services.catalog import Release
from fleet_server.services.evaluators import Evaluators
from fleet_server.storage import journal, parity_counts

KEPT_SAMPLES = 1000
"""Of each device; a broker sends again what it had under way, some hundreds of all devices."""
NAMED = 8
"""Features that a text names at most."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """On what a device and this server disagree."""

    features: list[str]
    """Names of the model's inputs; none where the sample could not be computed again."""
    text: str


def compare(sample: Sample, release: Release, evaluators: Evaluators) -> Difference | None:
    """Say which features differ in any bit; none where they agree.

    Lengths and the definition's digest are checked before. Features that depend on something
    redacted cannot be compared.
    """
    names = release.definition.feature_names
    try:
        evaluator = evaluators.of(release.definition_digest, release.definition)
        ours = sampled.computed(sample, evaluator, release.redaction)
    except InvalidInput as error:
        return Difference(features=[], text=f"its inputs are refused here: {quoted(error)}")
    theirs = np.frombuffer(sample.features, dtype="<u4")
    unlike = ours.astype("<f4").view("<u4") != theirs
    unlike[release.redaction.hidden] = False
    differs = np.flatnonzero(unlike)
    if not len(differs):
        return None
    features = [names[place] for place in differs.tolist()]
    more = f" and {len(features) - NAMED} more" if len(features) > NAMED else ""
    return Difference(features=features, text=f"{', '.join(features[:NAMED])}{more}")


def possible(release: Release) -> bool:
    """Whether any feature of a release's samples can be computed again."""
    if isinstance(release.definition, RequestDefinition):
        return release.redaction.keeps_requests
    return len(release.redaction.hidden) < len(release.definition.feature_names)


def record(
    connection: sa.Connection,
    sample: Sample,
    release: Release,
    evaluators: Evaluators,
    now_ms: int,
) -> None:
    """Compare one sample and keep the counts; a difference opens an alert.

    One that comes again, because its acknowledgement was lost, is left out.
    """
    digest = release.ref.digest
    place = (sample.device, sample.prediction_id, digest)
    if not parity_counts.new_sample(connection, *place, keep=KEPT_SAMPLES):
        return
    if not possible(release):
        parity_counts.add_unreplayed(connection, sample.device, digest)
        return
    difference = compare(sample, release, evaluators)
    text = difference.text if difference else ""
    parity_counts.add(connection, sample.device, digest, difference is not None, text)
    if difference is None:
        return
    parity_counts.add_mismatches(connection, digest, difference.features)
    subject = f"{sample.device}/{release.ref.name}"
    title = (
        f"{sample.device} computes other features than the definition of {release.ref.name} "
        f"gives: {text}"
    )
    detail = {
        "device": sample.device,
        "release": release.ref.name,
        "features": difference.features[:NAMED],
        "difference": text,
    }
    if journal.open_alert(connection, now_ms, "parity", subject, title, detail):
        journal.add_event(connection, now_ms, "parity", sample.device, title, detail)
