"""The server's word on a trial: it confirms where it hears the device and its statistics.

A device that let a candidate pass its own trial waits for this, and goes back without it: a release
with which it can no longer speak to the fleet is none to keep.
"""

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import ReportedState
from fleet_server.storage import desired_states, devices, journal, windows

ON_TRIAL = "probation"


def consider(connection: sa.Connection, device: str, now_ms: int) -> None:
    """Confirm the trial of a device that was just heard of, if it passed and speaks."""
    known = devices.one(connection, device)
    wish = desired_states.one(connection, device)
    if known is None or wish is None or known.update_state != ON_TRIAL:
        return
    if known.desired_revision != wish.revision or known.active != wish.active or not wish.active:
        return
    said = devices.reported(connection, device)
    trial = msgspec.json.decode(said, type=ReportedState).probation if said else None
    if trial is None or not trial.passed or known.last_seen_ms < wish.issued_ms:
        return
    answered = trial.rows + trial.errors
    # A device that nobody asks anything has no windows to send.
    if answered and not windows.heard_of(connection, device, wish.active, wish.issued_ms):
        return
    if desired_states.confirm(connection, device, wish.revision, now_ms):
        text = f"trial confirmed: {trial.verdict}"
        journal.add_event(connection, now_ms, "device", device, text)
