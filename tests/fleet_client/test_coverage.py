"""Every call of the API has a method of ``FleetClient``, and every method a command."""

import ast
import re
from pathlib import Path

from fastapi import FastAPI

from fleet_server.api import routes

CALLS = Path("fleet_client/calls")
COMMANDS = Path("fleet_client/commands")
VERBS = {
    "_get": "GET",
    "_items": "GET",
    "_pages": "GET",
    "_first": "GET",
    "_bytes": "GET",
    "_events": "GET",
    "_post": "POST",
    "_post_once": "POST",
    "_put": "PUT",
    "_delete": "DELETE",
}
OF_WORKERS = {
    "claim_retraining": "serinus-convert worker",
    "renew_retraining": "serinus-convert worker",
    "finish_retraining": "serinus-convert worker",
    "each_device": "devices() reads its pages",
}
"""Methods that other programs call, and which."""
OF_PROGRAMS = {
    ("POST", "devices/{}/commands"): "POST commands orders one device or many",
    ("POST", "enrol"): "serinus-agent enrol",
    ("POST", "enrol/renew"): "serinus-agent run",
}
"""Calls without a method, and what there is instead."""


def template(node: ast.expr) -> str:
    """A path with ``{}`` for what it names."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)


def called() -> dict[tuple[str, str], set[str]]:
    """(method, path) -> methods of the client that call it, by reading their source."""
    found: dict[tuple[str, str], set[str]] = {}
    for file in sorted(CALLS.glob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    verb = VERBS.get(node.func.attr)
                    if verb is not None and node.args:
                        path = template(node.args[0])
                        found.setdefault((verb, path), set()).add(function.name)
    return found


def offered() -> set[tuple[str, str]]:
    """(method, path) below /api/v1."""
    found = set()
    app = FastAPI()
    app.include_router(routes.router)
    for path, methods in app.openapi()["paths"].items():
        plain = re.sub(r"\{[^}]*\}", "{}", path.removeprefix("/api/v1/"))
        found |= {(method.upper(), plain) for method in methods}
    return found


def test_the_client_has_a_method_for_every_call_and_calls_nothing_else() -> None:
    assert offered() - called().keys() == OF_PROGRAMS.keys()
    assert called().keys() - offered() == set()


def test_every_method_of_the_client_has_a_command() -> None:
    source = "".join(file.read_text() for file in COMMANDS.glob("*.py"))
    used = set(re.findall(r"(?:client|of\(context\)\.client)\.(\w+)\(", source))
    methods = {name for names in called().values() for name in names if not name.startswith("_")}
    assert methods - used - OF_WORKERS.keys() == set()
