"""Templates to pages, and who may see them: what all pages of the console share."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from edge_core.errors import Unavailable
from fleet_server.console import figures, plots, wording
from fleet_server.services.errors import NotAuthenticated, NotFound
from fleet_server.services.suite import Services
from fleet_server.storage.tokens import StoredToken

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
AWAY = (
    "The database cannot be used now. Nothing that devices send is lost meanwhile; try again soon."
)


class PageRoute(APIRoute):
    """A page for people: also where nobody is logged in, nothing is found, the database is away."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what answers."""
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except NotAuthenticated:
                return RedirectResponse("/login", status_code=303)
            except NotFound as error:
                return page("refused.html", status=404, text=str(error))
            except Unavailable:
                return page("refused.html", status=503, text=AWAY)

        return answered


def _services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


ServicesOf = Annotated[Services, Depends(_services)]


def _reader(request: Request, services: ServicesOf) -> StoredToken:
    return services.tokens.session(request.cookies.get(SESSION_COOKIE))


Reader = Annotated[StoredToken, Depends(_reader)]
"""Who is logged in; whoever is not is sent to log in."""


def page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Render a template."""
    html = _templates.get_template(template).render(**values)
    return HTMLResponse(html, status_code=status, headers=HEADERS)


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
)
_templates.filters |= {
    "ago": wording.ago,
    "clock": wording.clock,
    "cost": figures.cost,
    "day": wording.day,
    "evidence": figures.evidence,
    "fact": wording.fact,
    "meter": figures.meter,
    "short": figures.short,
    "span": wording.span,
    "time": wording.time_of_day,
    "words": wording.words,
}
_templates.globals |= {"delay_plot": plots.delays, "interval_plot": plots.interval}
