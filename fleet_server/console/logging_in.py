"""Logging in and out: by a token, or by the organisation's own accounts (OpenID Connect)."""

from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from edge_core.errors import SerinusError
from fleet_server.console.rendering import SESSION_COOKIE, PageRoute, ServicesOf, page
from fleet_server.services.accounts import Accounts, Attempt
from fleet_server.services.tokens import SESSION_MS

ATTEMPT_COOKIE = "serinus_login"
ATTEMPT_SECONDS = 600

router = APIRouter(include_in_schema=False, route_class=PageRoute)


def _accounts(request: Request) -> Accounts | None:
    found = request.app.state.accounts
    assert found is None or isinstance(found, Accounts)
    return found


def _form(request: Request, status: int = 200, problem: str = "") -> Response:
    accounts = _accounts(request)
    return page(
        "login.html", status=status, problem=problem, accounts=accounts.name if accounts else ""
    )


@router.get("/login")
def login_form(request: Request) -> Response:
    """Ask who it is."""
    return _form(request)


@router.post("/login")
async def login(request: Request, services: ServicesOf) -> Response:
    """Start a session; the token itself is not kept by the browser."""
    if not same_origin(request):
        return _form(request, 403, "this form was sent by another site")
    form = parse_qs((await request.body()).decode("utf-8", errors="replace"))
    secret = form.get("token", [""])[0].strip()
    try:
        session = await run_in_threadpool(services.tokens.log_in, secret)
    except SerinusError as error:
        return _form(request, 401, str(error))
    answer = RedirectResponse("/", status_code=303)
    _keep(answer, request, session)
    return answer


@router.get("/login/accounts")
def to_accounts(request: Request) -> Response:
    """Go to where the organisation's people log in."""
    accounts = _accounts(request)
    if accounts is None:
        return _form(request, 404, "no accounts are set up here: log in with a token")
    try:
        address, attempt = accounts.begin()
    except SerinusError as error:
        return _form(request, 503, str(error))
    answer = RedirectResponse(address, status_code=303)
    answer.set_cookie(
        ATTEMPT_COOKIE,
        attempt.text(),
        max_age=ATTEMPT_SECONDS,
        path="/login/accounts",
        httponly=True,
        samesite="lax",  # who comes back comes from another site
        secure=accounts.secure,
    )
    return answer


@router.get("/login/accounts/back")
def from_accounts(request: Request, services: ServicesOf) -> Response:
    """Start a session for whom the accounts vouch for."""
    accounts = _accounts(request)
    attempt = Attempt.parse(request.cookies.get(ATTEMPT_COOKIE, ""))
    if accounts is None or attempt is None:
        return _form(request, 400, "this log-in was begun elsewhere, or too long ago: try again")
    try:
        person = accounts.finish(attempt, dict(request.query_params))
        session = services.tokens.log_in_as(person.name, person.role)
    except SerinusError as error:
        return _form(request, 401, str(error))
    # A strict cookie is not sent along a way that began at another site: the page begins a new one.
    answer = page("welcome.html", name=person.name, role=person.role)
    answer.delete_cookie(ATTEMPT_COOKIE, path="/login/accounts")
    _keep(answer, request, session, secure=accounts.secure)
    return answer


@router.post("/logout")
def logout(request: Request, services: ServicesOf) -> Response:
    """End the session."""
    if not same_origin(request):
        return _form(request, 403, "this form was sent by another site")
    services.tokens.log_out(request.cookies.get(SESSION_COOKIE))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


def same_origin(request: Request) -> bool:
    """Whether a form comes from this site's own pages, as far as the browser says.

    Browsers send ``Origin`` with every POST, and pages cannot change it. Sessions are strict
    same-site cookies besides; this also covers logging in, which needs none.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    return urlsplit(origin).netloc == request.headers.get("host", "")


def _keep(answer: Response, request: Request, session: str, *, secure: bool = False) -> None:
    answer.set_cookie(
        SESSION_COOKIE,
        session,
        max_age=SESSION_MS // 1000,
        httponly=True,
        samesite="strict",
        secure=secure or request.url.scheme == "https",
    )
