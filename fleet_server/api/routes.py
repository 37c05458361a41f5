"""Everything below /api/v1, one module for each subject."""

from fastapi import APIRouter

from fleet_server.api import (
    audit,
    devices,
    drift,
    groups,
    history,
    incidents,
    journal,
    labels,
    releases,
    retraining,
    rollouts,
)

router = APIRouter(prefix="/api/v1")
for subject in (
    devices,
    groups,
    releases,
    rollouts,
    labels,
    drift,
    retraining,
    journal,
    incidents,
    history,
    audit,
):
    router.include_router(subject.router)
