"""Pages on what people look at and decide: alerts, incidents, labels, the log of decisions."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from fleet_server.console.plots import start_of
from fleet_server.console.rendering import PageRoute, Reader, ServicesOf, page
from fleet_server.console.wording import facts_of

ALERTS_SHOWN = 200
INCIDENTS_SHOWN = 200
DECISIONS_SHOWN = 100
LARGEST = 2**31 - 1

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Kind = Annotated[str, Query(max_length=64)]
Number = Annotated[int, Path(ge=1, le=LARGEST)]
Before = Annotated[int | None, Query(ge=1, le=LARGEST)]


@router.get("/alerts")
def alerts(token: Reader, services: ServicesOf, kind: Kind = "") -> Response:
    """Show alerts: open ones, then the newest closed ones."""
    incidents = reversed(services.incidents.every(INCIDENTS_SHOWN))
    return page(
        "alerts.html",
        token=token,
        now_ms=services.overview.now_ms,
        kind=kind,
        kinds=services.overview.alert_kinds(),
        alerts=services.overview.alerts(ALERTS_SHOWN, kind=kind or None),
        incidents={(row.kind, row.subject): row.incident for row in incidents},
    )


@router.get("/incidents")
def incidents(token: Reader, services: ServicesOf) -> Response:
    """List incidents: those that nobody has resolved first."""
    return page(
        "incidents.html",
        token=token,
        now_ms=services.overview.now_ms,
        incidents=services.incidents.every(INCIDENTS_SHOWN),
        counts=services.incidents.counts(),
    )


@router.get("/incidents/{number}")
def incident(number: Number, token: Reader, services: ServicesOf) -> Response:
    """Show an incident with what it did and its timeline."""
    view = services.incidents.one(number)
    return page("incident.html", token=token, now_ms=services.overview.now_ms, view=view)


@router.get("/labels")
def labels(token: Reader, services: ServicesOf) -> Response:
    """Show how many labels of each model come, and how late."""
    return page(
        "labels.html",
        token=token,
        now_ms=services.overview.now_ms,
        models=services.label_status.every(),
    )


@router.get("/labels/{model}")
def labels_of_model(
    model: str, token: Reader, services: ServicesOf, release: Kind = ""
) -> Response:
    """Show how late a model's labels come, and how one of its releases fares on each slice."""
    status = services.label_status.of_model(model)
    choice = services.label_status.releases_of(model)
    shown = release if release in choice.names else choice.shown
    report = services.fairness.report(shown)
    lows = [one.figure.low for one in report.slices if one.figure.low is not None]
    return page(
        "labels_of_model.html",
        token=token,
        now_ms=services.overview.now_ms,
        labels=status,
        choice=choice,
        report=report,
        start=start_of(min(lows, default=None)),
    )


@router.get("/decisions")
def decisions(
    token: Reader, services: ServicesOf, kind: Kind = "", before: Before = None
) -> Response:
    """Show the log of decisions, the newest first, and whether its chain holds."""
    found = services.audit_log.latest(DECISIONS_SHOWN + 1, before=before, kind=kind or None)
    entries = found[:DECISIONS_SHOWN]
    return page(
        "decisions.html",
        token=token,
        now_ms=services.overview.now_ms,
        kind=kind,
        kinds=services.audit_log.kinds(),
        checked=services.audit_log.lately(),
        entries=[(entry, facts_of(entry.detail)) for entry in entries],
        older=entries[-1].entry if len(found) > len(entries) else None,
    )
