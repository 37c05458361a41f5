"""Errors of the services -> status and problem+json (RFC 9457): the only status table."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edge_core.errors import SerinusError, Unavailable
from fleet_server.services.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
)

STATUS: dict[type[SerinusError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    NotAllowed: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


def install(app: FastAPI) -> None:
    """Answer every refusal of the app with a problem document."""
    app.add_exception_handler(SerinusError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)


def problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """One problem document."""
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(
        {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail},
        status_code=int(status),
        headers=headers,
        media_type="application/problem+json",
    )


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    found = (status for kind, status in STATUS.items() if isinstance(error, kind))
    return problem(next(found, HTTPStatus.UNPROCESSABLE_ENTITY), str(error))


async def _malformed(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [
        f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}"
        for entry in error.errors()[:5]
    ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(parts))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(HTTPStatus(error.status_code), str(error.detail))
