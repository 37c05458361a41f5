"""Which alerts open an incident, and what belongs to its timeline. Pure."""

from collections.abc import Mapping
from typing import Any, Final, Literal

State = Literal["open", "mitigated", "resolved"]
OPENING: Final = ("rollback", "drift", "parity", "fairness", "retraining", "lapsing")
"""Kinds of alerts that open one."""
LOOK_BACK_MS: Final = 24 * 3_600_000
"""So long before it opened, the timeline begins: what changed last is what people ask first."""


def opens(kind: str) -> bool:
    """Whether an alert of this kind opens an incident."""
    return kind in OPENING


def model_of(detail: Mapping[str, Any]) -> str:
    """The model that an alert or event speaks of; empty where it names none."""
    named = detail.get("model")
    if named:
        return str(named)
    return str(detail.get("release") or "").partition("@")[0]


def belongs(
    incident_model: str, incident_subject: str, subject: str, detail: Mapping[str, Any]
) -> bool:
    """Whether an event is part of an incident.

    One of its model, release or rollout is; one of a device is where the incident is about it.
    """
    if subject == incident_subject or subject in incident_subject.split("/"):
        return True
    if not incident_model:
        return False
    named = (model_of(detail), subject.partition(" ")[0].partition("@")[0])
    return incident_model in named
