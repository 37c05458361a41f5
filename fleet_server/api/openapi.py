"""The API's own description: FastAPI's, completed by what calls answer with and how they refuse."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from fleet_server.api import answers, routes
from fleet_server.api.answers import Answers, Form

Json = dict[str, Any]

REFS = "#/components/schemas/{name}"
PROBLEM = {
    "title": "Problem",
    "description": "Why a call was refused (RFC 9457); docs/api.md tells the types.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "examples": ["urn:serinus:problem:not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
REFUSED = {
    "description": "Refused, or not possible now",
    "content": {"application/problem+json": {"schema": {"$ref": REFS.format(name="Problem")}}},
}


def install(app: FastAPI, version: str) -> None:
    """Let an app describe itself so at /openapi.json."""

    def described() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, version)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def describe(app: FastAPI, version: str) -> Json:
    """The whole OpenAPI document."""
    found: Json = get_openapi(title=app.title, version=version, routes=app.routes)
    calls = list(every())
    schemas = _Schemas(calls)
    known = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)  # FastAPI's own form of refusal; ours is a problem document
    known |= schemas.components | {"Problem": PROBLEM}
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"token": []}]
    for call in calls:
        operation = found["paths"][call.path][call.method.lower()]
        operation["responses"] = {str(call.status): _answer(call, schemas), "default": REFUSED}
        if call.body is not None:
            content = {"application/json": {"schema": schemas.of(call.body)}}
            operation["requestBody"] = {"required": True, "content": content}
    return found


class Call(NamedTuple):
    """One call of the API."""

    method: str
    path: str
    status: int
    answers: Answers | None
    """None: it answers without content."""
    body: Any
    """What it reads itself; none where FastAPI does, which describes it."""


def every() -> Iterator[Call]:
    """Every call of the API, with what it answers."""
    for subject in routes.SUBJECTS:
        for route in subject.router.routes:
            assert isinstance(route, APIRoute)
            for method in sorted(route.methods or ()):
                yield Call(
                    method,
                    routes.PREFIX + route.path,
                    route.status_code or 200,
                    answers.of(route.endpoint),
                    answers.body_of(route.endpoint),
                )


class _Schemas:
    """Schemas of structs, which name one another."""

    def __init__(self, calls: Sequence[Call]) -> None:
        kinds = [call.body for call in calls if call.body is not None]
        for call in calls:
            if call.answers is not None and call.answers.form != "other":
                kinds += call.answers.kinds
        self._kinds = list(dict.fromkeys(kinds))
        self._schemas, self.components = msgspec.json.schema_components(
            self._kinds, ref_template=REFS
        )

    def of(self, *kinds: Any) -> Json:
        """Schema of a kind, or of any of several."""
        found = [self._schemas[self._kinds.index(kind)] for kind in kinds]
        return found[0] if len(found) == 1 else {"anyOf": found}


def _answer(call: Call, schemas: _Schemas) -> Json:
    if call.answers is None:
        return {"description": "Done"}
    if call.answers.form == "other":
        return {"description": "Done", "content": {kind: {} for kind in call.answers.kinds}}
    schema = _schema(call.answers.form, schemas.of(*call.answers.kinds))
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _schema(form: Form, schema: Json) -> Json:
    if form == "one":
        return schema
    properties: Json = {"items": {"type": "array", "items": schema}}
    if form == "part":
        properties["next"] = {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "Cursor of the next part; null at the end",
        }
    return {"type": "object", "properties": properties, "required": list(properties)}
