"""The page: fleet, rollouts, releases, alerts and events, rendered here without any script."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

import jinja2
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from edge_core.errors import SerinusError, Unavailable
from fleet_server.console import figures
from fleet_server.services.errors import NotAuthenticated, NotFound
from fleet_server.services.suite import Services
from fleet_server.services.tokens import SESSION_MS

SESSION_COOKIE = "serinus_session"
FOLDER = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ROLLOUTS_SHOWN = 12
EVENTS_SHOWN = 40
COMMANDS_SHOWN = 50

AWAY = (
    "The database cannot be used now. Nothing that devices send is lost meanwhile; try again soon."
)


class _Route(APIRoute):
    """A page for people, also where the database is away."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what answers."""
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except Unavailable:
                return _page("refused.html", status=503, text=AWAY)

        return answered


router = APIRouter(include_in_schema=False, route_class=_Route)
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
)


def _services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


ServicesOf = Annotated[Services, Depends(_services)]


@router.get("/")
def home(request: Request, services: ServicesOf) -> Response:
    """Show the whole fleet on one page."""
    try:
        token = services.tokens.session(request.cookies.get(SESSION_COOKIE))
    except NotAuthenticated:
        return RedirectResponse("/login", status_code=303)
    rollouts = services.rollouts.every()
    return _page(
        "home.html",
        token=token,
        now_ms=services.overview.now_ms,
        fleet=services.overview.fleet(),
        production=services.overview.production(),
        devices=services.overview.devices(),
        releases=services.overview.releases(),
        rollouts=rollouts[:ROLLOUTS_SHOWN],
        alerts=services.overview.alerts(20),
        rejected=services.overview.rejected(10),
        events=services.overview.latest_events(EVENTS_SHOWN),
    )


@router.get("/rollouts/{rollout}")
def rollout(rollout: str, request: Request, services: ServicesOf) -> Response:
    """Show one rollout with its stored verdicts."""
    try:
        token = services.tokens.session(request.cookies.get(SESSION_COOKIE))
        shown = services.rollouts.one(rollout)
        verdicts = services.verdicts.of_rollout(rollout)
    except NotAuthenticated:
        return RedirectResponse("/login", status_code=303)
    except NotFound as error:
        return _page("refused.html", status=404, text=str(error))
    return _page(
        "rollout.html",
        token=token,
        now_ms=services.overview.now_ms,
        rollout=shown,
        verdicts=verdicts,
    )


@router.get("/devices/{device}")
def device(device: str, request: Request, services: ServicesOf) -> Response:
    """Show one device: what it runs, who answers there, and what was ordered of it."""
    try:
        token = services.tokens.session(request.cookies.get(SESSION_COOKIE))
        shown = services.overview.device(device)
        commands = services.commands.of_device(device, COMMANDS_SHOWN)
    except NotAuthenticated:
        return RedirectResponse("/login", status_code=303)
    except NotFound as error:
        return _page("refused.html", status=404, text=str(error))
    # Not all of it was known to devices of version 1.
    reported: dict[str, object] = {
        "fallbacks": [],
        "placement": None,
        "previous": None,
        "probation": None,
        "shadow_dropped": 0,
        "troubles": [],
    }
    return _page(
        "device.html",
        token=token,
        now_ms=services.overview.now_ms,
        device=shown,
        reported=reported | (shown.reported or {}),
        commands=commands,
    )


@router.get("/login")
def login_form() -> Response:
    """Ask for a token."""
    return _page("login.html", problem="")


@router.post("/login")
async def login(request: Request, services: ServicesOf) -> Response:
    """Start a session; the token itself is not kept by the browser."""
    form = parse_qs((await request.body()).decode("utf-8", errors="replace"))
    secret = form.get("token", [""])[0].strip()
    try:
        session = await run_in_threadpool(services.tokens.log_in, secret)
    except SerinusError as error:
        return _page("login.html", status=401, problem=str(error))
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        SESSION_COOKIE,
        session,
        max_age=SESSION_MS // 1000,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def logout(request: Request, services: ServicesOf) -> Response:
    """End the session."""
    services.tokens.log_out(request.cookies.get(SESSION_COOKIE))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


@router.get("/style.css")
def style() -> Response:
    """Send the page's own style."""
    return Response(
        (FOLDER / "style.css").read_bytes(),
        media_type="text/css",
        headers={"Cache-Control": "max-age=60"},
    )


def _page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    html = _templates.get_template(template).render(**values)
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def _clock(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):  # a device's clock that no calendar reaches
        return f"{milliseconds} ms"


def _ago(milliseconds: int | None, now_ms: int) -> str:
    if milliseconds is None:
        return ""
    seconds = max(0, now_ms - milliseconds) // 1000
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


_templates.filters |= {
    "clock": _clock,
    "ago": _ago,
    "words": lambda value: str(value or "").replace("_", " "),
    "cost": figures.cost,
    "meter": figures.meter,
    "evidence": figures.evidence,
}
