"""Errors of the services -> status and problem+json (RFC 9457): the only status table."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edge_core.errors import SerinusError, Unavailable
from fleet_server.services.errors import (
    Changed,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
)

STATUS: dict[type[SerinusError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Changed: HTTPStatus.PRECONDITION_FAILED,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    NotAllowed: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
TYPE = "urn:serinus:problem:"


def install(app: FastAPI) -> None:
    """Answer every refusal of the app with a problem document."""
    app.add_exception_handler(SerinusError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)


def refusal(error: SerinusError) -> JSONResponse:
    """The problem document of what a service refuses."""
    found = next((kind for kind in STATUS if isinstance(error, kind)), InvalidRequest)
    return problem(STATUS[found], str(error))


def problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """One problem document; docs/api.md tells the types."""
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    content = {
        "type": TYPE + status.phrase.lower().replace(" ", "-"),
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
    }
    return JSONResponse(
        content,
        status_code=int(status),
        headers=headers,
        media_type="application/problem+json",
    )


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SerinusError)
    return refusal(error)


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
