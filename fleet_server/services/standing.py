"""Tells a person when what is in production is no longer approved."""

import sqlalchemy as sa

from fleet_server.storage import journal, releases

STANDING = "approval"


def watch(connection: sa.Connection, now_ms: int) -> None:
    """Open an alert for each model whose production release was revoked; close what is over.

    Called whenever approvals or production change, in the same transaction. Nothing is ordered:
    which approved release should follow is a person's choice, and devices refuse a revoked one.
    """
    listed, names = releases.listing(connection), releases.names(connection)
    revoked = {
        model: names[row.digest]
        for model, row in releases.in_production(connection).items()
        if not listed[row.digest]
    }
    for model, name in revoked.items():
        title = f"{name} is in production and no longer approved: roll out a release that is"
        if journal.open_alert(
            connection, now_ms, STANDING, model, title, {"model": model, "release": name}
        ):
            journal.add_event(connection, now_ms, STANDING, name, title)
    for alert in journal.open_alerts(connection, STANDING):
        if alert.subject not in revoked:
            journal.close_alert(connection, now_ms, STANDING, alert.subject)
