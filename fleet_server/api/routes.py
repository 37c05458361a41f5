"""Everything below /api/v1, one module for each subject."""

from fastapi import APIRouter

from fleet_server.api import (
    audit,
    consumers,
    cost,
    devices,
    drift,
    enrolment,
    event_stream,
    groups,
    history,
    incidents,
    journal,
    labels,
    releases,
    retraining,
    rollouts,
    tokens,
    webhooks,
)

PREFIX = "/api/v1"
SUBJECTS = (
    event_stream,
    consumers,
    devices,
    groups,
    releases,
    cost,
    rollouts,
    labels,
    drift,
    retraining,
    journal,
    incidents,
    history,
    audit,
    webhooks,
    tokens,
    enrolment,
)

router = APIRouter(prefix=PREFIX)
for subject in SUBJECTS:
    router.include_router(subject.router)
