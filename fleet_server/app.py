"""The web application as a function of its parts."""

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from fleet_server.api import errors, metrics, openapi, routes
from fleet_server.api.conditional import Conditional
from fleet_server.api.idempotency import Idempotency
from fleet_server.api.limits import BodyLimit
from fleet_server.api.request_limits import RequestLimits
from fleet_server.api.schemas import LARGER_BODIES, MAX_BODY_BYTES
from fleet_server.api.timing import Timing
from fleet_server.config import ServerConfig
from fleet_server.console import pages
from fleet_server.services.accounts import Accounts
from fleet_server.services.suite import Services

VERSION = "1"
"""Of the API: its paths begin with it."""


def create_app(config: ServerConfig, services: Services) -> FastAPI:
    """Build the API, the release repository's static files and the page."""
    app = _bare(services)
    app.state.listeners = 0
    app.state.ending = False
    app.state.accounts = Accounts(config.oidc) if config.oidc.issuer else None
    app.add_middleware(Conditional, database=services.database)
    app.add_middleware(Idempotency, requests=services.idempotency, tokens=services.tokens)
    app.add_middleware(BodyLimit, most=MAX_BODY_BYTES, larger=LARGER_BODIES)
    app.add_middleware(RequestLimits, config=config.requests)
    app.add_middleware(Timing, measures=services.measures)
    app.include_router(routes.router)
    app.include_router(pages.router)
    for part in ("metadata", "targets"):
        files = StaticFiles(directory=config.repository_dir / part, check_dir=False)
        files.config_checked = True  # the repository may be made after the server has started
        app.mount(f"/repository/{part}", files)

    openapi.install(app, VERSION)
    return app


def create_watched(services: Services) -> FastAPI:
    """Build what a process without the role ``api`` answers: how it is, and nothing else."""
    return _bare(services)


def _bare(services: Services) -> FastAPI:
    app = FastAPI(title="Serinus fleet server", docs_url=None, redoc_url=None)
    app.state.services = services
    errors.install(app)
    app.include_router(metrics.router)
    return app
