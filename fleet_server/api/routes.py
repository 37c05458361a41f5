"""Everything below /api/v1, one module for each subject."""

from fastapi import APIRouter

from fleet_server.api import devices, history, journal, releases, rollouts

router = APIRouter(prefix="/api/v1")
for subject in (devices, releases, rollouts, history, journal):
    router.include_router(subject.router)
